// SPDX-License-Identifier: Apache-2.0
// The number formats of weights and KV, and their conversions to and from fp32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace starattn {

// f8: e4m3 without infinities (arXiv 2209.05433); weights alone have it, with scales beside them.
enum class Dtype : std::uint8_t { f32, f16, bf16, f8 };

constexpr std::size_t size_of(Dtype dtype) {
  return dtype == Dtype::f32 ? 4 : dtype == Dtype::f8 ? 1 : 2;
}
std::string_view name_of(Dtype dtype);         // "f32", "f16", "bf16", "f8"
Dtype dtype_from_name(std::string_view name);  // of all but f8; throws Error(usage)

constexpr float bf16_to_f32(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// Round to nearest, ties to even; NaN stays NaN.
constexpr std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

float f16_to_f32(std::uint16_t bits);
float f8_to_f32(std::uint8_t bits);

}  // namespace starattn
