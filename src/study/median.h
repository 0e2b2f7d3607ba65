// SPDX-License-Identifier: Apache-2.0
// The median of repeated measurements, and how sure it is.
#pragma once

#include <optional>
#include <utility>
#include <vector>

namespace starattn {

struct Median {
  double value = 0;
  // Covers the median of what was sampled with at least 95 % probability, whatever its
  // distribution: two order statistics, chosen by the binomial distribution. With 6 to 8 values
  // these are the least and the greatest; of fewer there is no such interval.
  std::optional<std::pair<double, double>> interval;
};

Median median_of(std::vector<double> values);  // one at least

}  // namespace starattn
