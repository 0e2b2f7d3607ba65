// SPDX-License-Identifier: Apache-2.0
// Attention of one query row by one warp, fp32: a key per lane for the scores, head_dim / 32
// columns per lane for the output.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace starattn::kernels {

__device__ inline float dot(const __nv_bfloat16* a, const __nv_bfloat16* b, int n) {
  float sum = 0;
  for (int i = 0; i < n; i += 2) {
    const float2 x = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(a + i));
    const float2 y = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(b + i));
    sum += x.x * y.x + x.y * y.y;
  }
  return sum;
}

__device__ inline float warp_max(float x) {
  for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, i));
  return x;
}
__device__ inline float warp_sum(float x) {
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffff, x, i);
  return x;
}

template <int kHeadDim>
struct PlainRow {
  float o[kHeadDim / 32] = {};
  float m = -INFINITY, l = 0;

  // 32 keys, one per lane; n_visible of them count.
  __device__ void add(const __nv_bfloat16* q, const __nv_bfloat16* k, const __nv_bfloat16* v,
                      std::int64_t stride, int n_visible, float scale) {
    const int lane = threadIdx.x % 32;
    const float s = lane < n_visible ? dot(q, k + lane * stride, kHeadDim) * scale : -INFINITY;
    const float top = fmaxf(m, warp_max(s));
    const float rescale = m == -INFINITY ? 0.f : expf(m - top);
    const float p = lane < n_visible ? expf(s - top) : 0.f;
    m = top;
    l = l * rescale + warp_sum(p);
    for (float& x : o) x *= rescale;
    for (int i = 0; i < n_visible; ++i) {
      const float weight = __shfl_sync(0xffffffff, p, i);
      for (int c = 0; c < kHeadDim / 32; ++c)
        o[c] += weight * __bfloat162float(v[i * stride + 32 * c + lane]);
    }
  }
};

}  // namespace starattn::kernels
