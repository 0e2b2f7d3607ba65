// SPDX-License-Identifier: Apache-2.0
#include "base/first_highest.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {

std::int32_t first_highest(std::span<const float> values) {
  STARATTN_CHECK(!values.empty());
  // Eight running maxima, which compilers turn into vectors; then the first place of the largest.
  constexpr std::size_t kLanes = 8;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, values[0]);
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j)
      lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
  }
  float highest = *std::max_element(lanes, lanes + kLanes);
  for (; i < values.size(); ++i) highest = std::max(highest, values[i]);
  const auto place = std::find(values.begin(), values.end(), highest);
  STARATTN_CHECK(place != values.end());  // not a number
  return static_cast<std::int32_t>(place - values.begin());
}

}  // namespace starattn
