// SPDX-License-Identifier: Apache-2.0
// One vector of floats of the instruction set that the including file is compiled for, and the few
// operations that GCC's vector extensions do not spell. Included by kernels_<isa>.cpp only: all of
// it has internal linkage, so no two instruction sets ever share a function.
#pragma once

#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace starattn::cpu {
namespace {

#if defined(__AVX512F__)
constexpr std::int64_t kLanes = 16;
#elif defined(__AVX2__)
constexpr std::int64_t kLanes = 8;
#else
constexpr std::int64_t kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(kLanes * 4)));
using Int = std::int32_t __attribute__((vector_size(kLanes * 4)));
using Half = std::uint16_t __attribute__((vector_size(kLanes * 2)));
// The same in memory: at any address, whatever the memory was declared as.
using VecMemory = float __attribute__((vector_size(kLanes * 4), aligned(1), may_alias));
using HalfMemory = std::uint16_t __attribute__((vector_size(kLanes * 2), aligned(1), may_alias));

inline Vec load(const void* from) {
  return *static_cast<const VecMemory*>(from);
}
inline void store(float* to, Vec v) {
  *reinterpret_cast<VecMemory*>(to) = v;
}

inline Vec splat(float x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (Vec)_mm256_set1_ps(x);
#else
  return Vec{x, x, x, x};
#endif
}

// a * b + c with one rounding where the instruction set has it, else with two; never left to the
// compiler's choice, so that every use gives the same bits.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// The larger, lane by lane; b where either is NaN.
inline Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Vec)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

inline Vec as_floats(Int bits) {
  return reinterpret_cast<Vec>(bits);
}
inline Int as_bits(Vec v) {
  return reinterpret_cast<Int>(v);
}

// Pairs of halves, then quarters and so on: one order for every use.
inline float sum_of_lanes(Vec v) {
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::int64_t i = 0; i < width; ++i) v[i] += v[i + width];
  }
  return v[0];
}

// e^x, relative error below 2e-7: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e^r, and n
// added to the exponent. Exactly 1 at 0 and 0 at -inf; results below 2^-126 are flushed to 0. x must
// not be above 88.
inline Vec exponential(Vec x) {
  const Vec lowest = splat(-87.33654F);            // just above ln 2^-126
  const Vec rounder = splat(12582912.0F);          // 1.5 * 2^23: adding it rounds to an integer
  const Int vanishes = x < lowest;
  x = larger(lowest, x);
  const Vec shifted = fma(x, splat(1.44269504F), rounder);
  const Vec n = shifted - rounder;
  Vec r = fma(n, splat(-0.693359375F), x);         // exact: few bits in the high part of ln 2
  r = fma(n, splat(2.12194440e-4F), r);
  Vec p = splat(1.9875691500e-4F);
  p = fma(p, r, splat(1.3981999507e-3F));
  p = fma(p, r, splat(8.3334519073e-3F));
  p = fma(p, r, splat(4.1665795894e-2F));
  p = fma(p, r, splat(1.6666665459e-1F));
  p = fma(p, r, splat(5.0000001201e-1F));
  p = fma(p, r * r, r) + splat(1.0F);
  const Int scaled = as_bits(p) + (as_bits(shifted) << 23);
  return as_floats(~vanishes & scaled);
}

}  // namespace
}  // namespace starattn::cpu
