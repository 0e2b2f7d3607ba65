// SPDX-License-Identifier: Apache-2.0
// A search for NaN and infinity at the rate at which memory is read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace starattn::cpu {

// The place of the first of n values that is NaN or infinite, or -1. The address may be unaligned.
std::int64_t first_not_finite(const std::byte* values, Dtype dtype, std::int64_t n);

}  // namespace starattn::cpu
