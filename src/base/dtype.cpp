// SPDX-License-Identifier: Apache-2.0
#include "base/dtype.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace starattn {

std::string_view name_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return "f32";
    case Dtype::f16:
      return "f16";
    case Dtype::bf16:
      return "bf16";
    case Dtype::f8:
      return "f8";
  }
  return "?";
}

Dtype dtype_from_name(std::string_view name) {
  for (Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::f8}) {
    if (name == name_of(dtype)) return dtype;
  }
  fail(Exit::usage, "unknown dtype '{}': expected f32, f16, bf16 or f8", name);
}

float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fU;
  const std::uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 31 ? 0xffU : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

float f8_to_f32(std::uint8_t bits) {
  const int exponent = bits >> 3 & 0xf;
  const auto mantissa = static_cast<float>(bits & 0x7);
  float magnitude = exponent == 0  // zero or subnormal
                        ? std::ldexp(mantissa, -9)
                        : std::ldexp(8 + mantissa, exponent - 10);
  if ((bits & 0x7f) == 0x7f) magnitude = NAN;
  return bits & 0x80 ? -magnitude : magnitude;
}

float e8m0_to_f32(std::uint8_t byte) {
  return byte == 255 ? NAN : std::ldexp(1.0F, byte - 127);
}

std::uint8_t f32_to_f8(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>(bits >> 24 & 0x80U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude >= 0x7f800000U) return sign | 0x7fU;
  constexpr std::uint32_t kLargest = 0x43e00000U;         // 448
  constexpr std::uint32_t kSmallestNormal = 0x3c800000U;  // 2^-6
  if (magnitude > kLargest) return sign | 0x7eU;
  if (magnitude < kSmallestNormal) {  // a multiple of 2^-9, to which this sum rounds
    constexpr float kUnits = 16384;   // 2^(23 - 9)
    const float sum = std::bit_cast<float>(magnitude) + kUnits;
    return sign | static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(sum) & 0xfU);
  }
  const std::uint32_t rounded = magnitude + 0x7ffffU + (magnitude >> 20 & 1U);
  return sign | static_cast<std::uint8_t>((rounded >> 20) - (120U << 3));
}

std::uint8_t to_f8(const float* values, std::int64_t n, std::uint8_t* to) {
  float largest = 0;
  for (std::int64_t i = 0; i < n; ++i)
    if (std::isfinite(values[i])) largest = std::max(largest, std::abs(values[i]));
  const std::uint8_t exponent = f8_exponent(largest);
  const float inverse = f8_inverse_scale(exponent);
  for (std::int64_t i = 0; i < n; ++i) to[i] = f32_to_f8(values[i] * inverse);
  return exponent;
}

}  // namespace starattn
