// SPDX-License-Identifier: Apache-2.0
// FP8 numbers (e4m3, arXiv 2209.05433) in registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace starattn::kernels {

// The bits of an e4m3 number, its sign, exponent and mantissa put where bf16 has them, are those of
// a bf16 number that is 2^120 times smaller, subnormal ones as well. factors: two powers of two.
__device__ __forceinline__ std::uint32_t multiply_pair(std::uint32_t pair, std::uint32_t factors) {
  const __nv_bfloat162 product = __hmul2(reinterpret_cast<const __nv_bfloat162&>(pair),
                                         reinterpret_cast<const __nv_bfloat162&>(factors));
  return reinterpret_cast<const std::uint32_t&>(product);
}
constexpr std::uint32_t kTimes2To120 = 0x7b807b80u;

// Two e4m3 numbers, each in the lower byte of a half, as bf16 times factors / 2^120. Bits are put
// in place by products where they can: beside a softmax, or products of many rows, the units of
// logic have enough to do.
__device__ __forceinline__ std::uint32_t widen_low_pair(std::uint32_t bytes,
                                                        std::uint32_t factors = kTimes2To120) {
  return multiply_pair(bytes * 16 + (bytes & 0x00800080u) * 240, factors);
}

// Bytes 1 and 3, or 0 and 2, as bf16, in fewer instructions than neighbours take.
__device__ __forceinline__ std::uint32_t odd_bytes(std::uint32_t four) {
  return multiply_pair((four & 0x80008000u) | ((four >> 4) & 0x07f007f0u), kTimes2To120);
}
__device__ __forceinline__ std::uint32_t even_bytes(std::uint32_t four) {
  return multiply_pair(((four << 8) & 0x80008000u) | ((four << 4) & 0x07f007f0u), kTimes2To120);
}

// Four numbers, in order: the upper and the lower bytes of all four are made together.
struct WidePairs {
  std::uint32_t first, second;
};
__device__ __forceinline__ WidePairs widen_four(std::uint32_t four) {
  const std::uint32_t upper = (four & 0x80808080u) | ((four >> 4) & 0x07070707u);
  const std::uint32_t lower = (four << 4) & 0xf0f0f0f0u;
  return {multiply_pair(__byte_perm(lower, upper, 0x5140), kTimes2To120),
          multiply_pair(__byte_perm(lower, upper, 0x7362), kTimes2To120)};
}

// 16 numbers, in order.
__device__ __forceinline__ void widen(const uint4& from, std::uint32_t (&pairs)[8]) {
  const std::uint32_t words[] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const WidePairs four = widen_four(words[i]);
    pairs[2 * i] = four.first;
    pairs[2 * i + 1] = four.second;
  }
}

// The same times 2^(exponent - 127), which rounds nothing. exponent: at most 134.
__device__ __forceinline__ void widen(const uint4& from, unsigned exponent,
                                      std::uint32_t (&pairs)[8]) {
  const std::uint32_t factors = (exponent + 120) * 0x00800080u;
  const std::uint32_t words[] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = widen_low_pair(__byte_perm(words[i], 0, 0x4140), factors);
    pairs[2 * i + 1] = widen_low_pair(__byte_perm(words[i], 0, 0x4342), factors);
  }
}

// The largest finite magnitude.
__device__ __forceinline__ float largest_finite(const float (&values)[8]) {
  float largest = 0;
#pragma unroll
  for (const float value : values)
    if (isfinite(value)) largest = fmaxf(largest, fabsf(value));
  return largest;
}

// As in base/dtype.h.
__device__ __forceinline__ unsigned f8_exponent(float largest) {
  const unsigned bits = __float_as_uint(largest);
  if (bits == 0) return 127;
  const int exponent = static_cast<int>((bits >> 23) + ((bits & 0x7fffffu) > 0x600000u)) - 8;
  return static_cast<unsigned>(min(max(exponent, 1), 134));
}

// To the nearest, divided by 2^(exponent - 127) before; NaN for what is not finite.
__device__ __forceinline__ uint2 narrow(const float (&values)[8], unsigned exponent) {
  const float inverse = __uint_as_float((254 - exponent) << 23);
  std::uint32_t words[2] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::uint32_t code =
        isfinite(values[i]) ? __nv_cvt_float_to_fp8(values[i] * inverse, __NV_SATFINITE, __NV_E4M3)
                            : (signbit(values[i]) ? 0xffu : 0x7fu);
    words[i / 4] |= code << i % 4 * 8;
  }
  return {words[0], words[1]};
}

}  // namespace starattn::kernels
