// SPDX-License-Identifier: Apache-2.0
#include "eval/line_sample.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace starattn {

LineSample::LineSample(std::uint64_t seed, std::int64_t n_wanted)
    : key_(absorb(mix(seed), "line sample")), n_wanted_(static_cast<std::size_t>(n_wanted)) {
  STARATTN_CHECK(n_wanted >= 1);
}

void LineSample::see(std::int64_t index) {
  lowest_.emplace(random_bits(key_, static_cast<std::uint64_t>(index)), index);
  if (lowest_.size() > n_wanted_) lowest_.pop();
}

std::vector<std::int64_t> LineSample::chosen() const {
  std::vector<std::int64_t> indices;
  for (auto rest = lowest_; !rest.empty(); rest.pop()) indices.push_back(rest.top().second);
  std::sort(indices.begin(), indices.end());
  return indices;
}

}  // namespace starattn
