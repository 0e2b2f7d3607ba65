// SPDX-License-Identifier: Apache-2.0
// The RMS norm of a row by a block of 256 threads, which take its vectors in turn: the same sums in
// the same order wherever the row comes from.
#pragma once

#include <cfloat>
#include <cmath>

#include "eight.cuh"
#include "warp.cuh"

namespace starattn::kernels {

// Sum over the block; every thread gets it. Always the same tree of additions.
__device__ __forceinline__ float block_sum(float x, float* shared) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) sum += shared[warp];
  return sum;
}

__device__ __forceinline__ float factor_of(float mean, float eps) {
  return mean <= FLT_MAX ? rsqrtf(mean + eps) : NAN;
}

__device__ __forceinline__ void add_squares(float& sum, const uint4& vector) {
  for (const float value : widened(vector).x) sum += value * value;
}

__device__ __forceinline__ uint4 scaled(const uint4& vector, float factor, const uint4& weights) {
  Eight v = widened(vector);
  const Eight scale = widened(weights);
#pragma unroll
  for (int i = 0; i < 8; ++i) v.x[i] = scale.x[i] * (v.x[i] * factor);
  return narrowed(v);
}

}  // namespace starattn::kernels
