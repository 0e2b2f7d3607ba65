// SPDX-License-Identifier: Apache-2.0
// What the 32 threads of a warp know together, always along the same tree of exchanges, so that the
// bits are the same everywhere. Every thread gets it.
#pragma once

#include <cuda_runtime.h>

namespace starattn::kernels {

constexpr unsigned kAllLanes = 0xffffffff;

template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

}  // namespace starattn::kernels
