// SPDX-License-Identifier: Apache-2.0
// Eight bf16 values, which are one access of 16 bytes, as fp32.
#pragma once

#include <cuda_bf16.h>

namespace starattn::kernels {

struct Eight {
  float x[8];
};

__device__ __forceinline__ Eight widened(const uint4& bits) {
  Eight v;
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&bits);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    v.x[2 * i] = pair.x;
    v.x[2 * i + 1] = pair.y;
  }
  return v;
}

__device__ __forceinline__ uint4 narrowed(const Eight& v) {
  uint4 bits;
  auto* pairs = reinterpret_cast<__nv_bfloat162*>(&bits);
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(v.x[2 * i], v.x[2 * i + 1]);
  return bits;
}

}  // namespace starattn::kernels
