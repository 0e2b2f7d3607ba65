// SPDX-License-Identifier: Apache-2.0
#include "study/median.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace starattn {
namespace {

// The largest k for which the k-th value from below and the k-th from above enclose the median with
// 95 %: the true median lies below the k-th smallest of n with probability P(Binomial(n, 1/2) < k).
// 0: there is none.
std::size_t rank_of_bound(std::size_t n) {
  double probability = std::pow(0.5, static_cast<double>(n));  // of exactly k below it
  double below = 0;
  std::size_t k = 0;
  while (k < n && 2 * (below + probability) <= 0.05) {
    below += probability;
    ++k;
    probability *= static_cast<double>(n - k + 1) / static_cast<double>(k);
  }
  return k;
}

}  // namespace

Median median_of(std::vector<double> values) {
  STARATTN_CHECK(!values.empty());
  std::ranges::sort(values);
  const std::size_t n = values.size();
  Median median;
  median.value = (values[(n - 1) / 2] + values[n / 2]) / 2;
  if (const std::size_t k = rank_of_bound(n); k > 0)
    median.interval = {values[k - 1], values[n - k]};
  return median;
}

}  // namespace starattn
