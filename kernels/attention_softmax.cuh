// SPDX-License-Identifier: Apache-2.0
// The softmax between the two products of attention, on wgmma's accumulator layout: a thread holds
// two rows (lane / 4 and 8 more, of its warp's 16) and of each the columns 2 * (lane % 4) + {0, 1}
// of every group of 8. Element i of s belongs to row (i / 2) % 2, column 8 * (i / 4) + i % 2.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "attention_work.h"

namespace starattn::kernels {

// The running maximum and this thread's share of the running sum of its two rows. The maximum is
// of unscaled scores.
struct RowState {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};
};

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Hides column c of row r where c >= limit[r] (relative to this thread's first column).
template <int kSize>
__device__ __forceinline__ void mask(float (&s)[kSize], const int (&limit)[2]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i)
    if (8 * (i / 4) + i % 2 >= limit[(i / 2) % 2]) s[i] = -INFINITY;
}

// Hides those in front of edge[r].
template <int kSize>
__device__ __forceinline__ void mask_front(float (&s)[kSize], const int (&edge)[2]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i)
    if (8 * (i / 4) + i % 2 < edge[(i / 2) % 2]) s[i] = -INFINITY;
}

// s <- exp(scale * (s - new maximum)); the state moves on; rescale[r]: what earlier sums and
// outputs of the row have to be multiplied with. scale_log2 = scale * log2(e). kInChunks: sums are
// of kChunkKeys columns first, which other kernels share out over warps.
template <bool kInChunks = false, int kSize>
__device__ __forceinline__ void softmax_step(float (&s)[kSize], RowState& rows, float (&rescale)[2],
                                             float scale_log2) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top[2] = {rows.max[r], s[2 * r]};
#pragma unroll
    for (int i = 2 * r; i < kSize; i += 4) {
      top[0] = fmaxf(top[0], s[i]);
      top[1] = fmaxf(top[1], s[i + 1]);
    }
    float row_max = fmaxf(top[0], top[1]);
    row_max = fmaxf(row_max, __shfl_xor_sync(0xffffffff, row_max, 1));
    row_max = fmaxf(row_max, __shfl_xor_sync(0xffffffff, row_max, 2));
    // A row that has seen nothing yet keeps -inf, but -inf - -inf must not appear.
    const float base = row_max == -INFINITY ? 0.f : row_max * scale_log2;
    rescale[r] = exp2_fast(rows.max[r] * scale_log2 - base);
    rows.max[r] = row_max;
    float sum[2] = {0, 0};
    constexpr int kChunk = kInChunks ? kChunkKeys / 2 : kSize;
#pragma unroll
    for (int first = 2 * r; first < kSize; first += kChunk) {
      float part[2] = {0, 0};
#pragma unroll
      for (int i = first; i < first + kChunk && i < kSize; i += 4) {
        s[i] = exp2_fast(s[i] * scale_log2 - base);
        s[i + 1] = exp2_fast(s[i + 1] * scale_log2 - base);
        part[0] += s[i];
        part[1] += s[i + 1];
      }
      sum[0] += part[0];
      sum[1] += part[1];
    }
    rows.sum[r] = rows.sum[r] * rescale[r] + (sum[0] + sum[1]);
  }
}

// Accumulators as the A operand of the next product: pairs of columns as bf16x2.
template <int kSize>
__device__ __forceinline__ void to_operand(const float (&s)[kSize], std::uint32_t (&p)[kSize / 2]) {
#pragma unroll
  for (int i = 0; i < kSize / 2; ++i)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(p[i]) : "f"(s[2 * i + 1]), "f"(s[2 * i]));
}

template <int kSize>
__device__ __forceinline__ void rescale_rows(float (&o)[kSize], const float (&rescale)[2]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) o[i] *= rescale[(i / 2) % 2];
}

// Each of the four threads that share a row gets the whole sum.
__device__ __forceinline__ void total_sums(RowState& rows) {
#pragma unroll
  for (float& sum : rows.sum) {
    sum += __shfl_xor_sync(0xffffffff, sum, 1);
    sum += __shfl_xor_sync(0xffffffff, sum, 2);
  }
}

}  // namespace starattn::kernels
