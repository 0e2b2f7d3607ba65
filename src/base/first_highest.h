// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace starattn {

// The place of the highest value, the first of equals. Not a number fails a check.
std::int32_t first_highest(std::span<const float> values);

}  // namespace starattn
