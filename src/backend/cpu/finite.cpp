// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/finite.h"

#include <algorithm>
#include <cstring>

namespace starattn::cpu {
namespace {

// A number of these formats is NaN or infinite where every bit of its exponent is set.
template <typename Bits>
std::int64_t first_with_all_of(Bits exponent, const std::byte* values, std::int64_t n) {
  constexpr std::int64_t kAtOnce = 1024;
  Bits some[kAtOnce];
  for (std::int64_t begin = 0; begin < n; begin += kAtOnce) {
    const std::int64_t count = std::min(kAtOnce, n - begin);
    std::memcpy(some, values + static_cast<std::size_t>(begin) * sizeof(Bits),
                static_cast<std::size_t>(count) * sizeof(Bits));
    Bits highest = 0;
    for (std::int64_t i = 0; i < count; ++i)
      highest = std::max(highest, static_cast<Bits>(some[i] & exponent));
    if (highest != exponent) continue;
    return begin + (std::find_if(some, some + count,
                                 [&](Bits bits) { return (bits & exponent) == exponent; }) -
                    some);
  }
  return -1;
}

}  // namespace

std::int64_t first_not_finite(const std::byte* values, Dtype dtype, std::int64_t n) {
  switch (dtype) {
    case Dtype::f32:
      return first_with_all_of<std::uint32_t>(0x7f800000, values, n);
    case Dtype::f16:
      return first_with_all_of<std::uint16_t>(0x7c00, values, n);
    case Dtype::bf16:
      return first_with_all_of<std::uint16_t>(0x7f80, values, n);
    case Dtype::f8:  // has no infinity; all ones is NaN
      return first_with_all_of<std::uint8_t>(0x7f, values, n);
  }
  return -1;
}

}  // namespace starattn::cpu
