// SPDX-License-Identifier: Apache-2.0
// The number formats of weights and KV, and their conversions to and from fp32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace starattn {

// f8: e4m3 without infinities (arXiv 2209.05433), with scales beside the numbers.
enum class Dtype : std::uint8_t { f32, f16, bf16, f8 };

constexpr std::size_t size_of(Dtype dtype) {
  return dtype == Dtype::f32 ? 4 : dtype == Dtype::f8 ? 1 : 2;
}
std::string_view name_of(Dtype dtype);         // "f32", "f16", "bf16", "f8"
Dtype dtype_from_name(std::string_view name);  // throws Error(usage)

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
// A scale in a byte, as files have it (E8M0 of the OCP Microscaling Formats): 2^(byte - 127); of
// 255 NaN.
float e8m0_to_f32(std::uint8_t byte);

// Round to nearest, ties to even, at most 448 in size; NaN for what is not finite.
std::uint8_t f32_to_f8(float value);

// Where FP8 numbers are made here, some share a scale that is a power of two, so that no
// multiplication by it rounds: 2^(exponent - 127), the least by which the largest finite magnitude
// becomes at most 448. (E8M0 of the OCP Microscaling Formats.) 1 to 134: beyond 57,344 numbers
// become that.
constexpr std::uint8_t f8_exponent(float largest) {
  const auto bits = std::bit_cast<std::uint32_t>(largest);
  if (bits == 0) return 127;
  const std::uint32_t is_above_448 = (bits & 0x7fffffU) > 0x600000U;  // with the exponent of 448
  const auto exponent = static_cast<int>((bits >> 23) + is_above_448) - 8;
  return static_cast<std::uint8_t>(exponent < 1 ? 1 : exponent > 134 ? 134 : exponent);
}
constexpr float f8_scale(std::uint8_t exponent) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent) << 23);
}
constexpr float f8_inverse_scale(std::uint8_t exponent) {
  return std::bit_cast<float>((254U - exponent) << 23);
}
// n numbers that share one, and its exponent.
std::uint8_t to_f8(const float* values, std::int64_t n, std::uint8_t* to);

// How a token's keys, or values, of one layer lie in memory: head by head. Behind FP8 numbers
// stands the exponent of each head's scale (f8_exponent), a byte each, and the row is filled up
// with zeros to a multiple of 16 bytes.
struct KvLayout {
  Dtype dtype = Dtype::f32;
  std::int64_t n_heads = 0;
  std::int64_t head_dim = 0;

  bool is_f8() const { return dtype == Dtype::f8; }
  std::int64_t width() const { return n_heads * head_dim; }
  std::size_t row_bytes() const {
    const auto n = static_cast<std::size_t>(width());
    return is_f8() ? (n + static_cast<std::size_t>(n_heads) + 15) / 16 * 16 : n * size_of(dtype);
  }
};

}  // namespace starattn
