// SPDX-License-Identifier: Apache-2.0
// The packed rows of a unit, row = token * group + head, and how finished ones are written, on the
// accumulator layout of attention_softmax.cuh.
#pragma once

#include "attention_softmax.cuh"
#include "attention_work.h"

namespace starattn::kernels {

// The keys of a unit reach as far as its last row sees.
__device__ __forceinline__ int last_row_of(const AttentionTask& task, const WorkItem& item) {
  return min((item.row_tile + 1) * task.tokens_per_tile, task.n_rows) - 1;
}

__device__ __forceinline__ int first_row_of(const AttentionTask& task, const WorkItem& item) {
  return item.row_tile * task.tokens_per_tile;
}

// Writes a thread's two rows, tile_row and 8 more, of kSize / 2 = head_dim / 4 columns each; see
// AttentionOutput. Their sums are whole.
template <int kSize>
__device__ void write_rows(const AttentionTask& task, const WorkItem& item, int first_row,
                           int tile_row, const float (&o)[kSize], const RowState& rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = rows.sum[r];
    const int packed = tile_row + 8 * r;
    const int token = packed / task.group;
    const int row = first_row + token;
    if (token >= task.tokens_per_tile || row >= task.n_rows) continue;
    const int head = item.kv_head * task.group + packed % task.group;
    const std::size_t at =
        (static_cast<std::size_t>(item.split) * task.n_rows + row) * task.n_heads + head;
    const std::size_t column = at * (2 * kSize) + 2 * (lane % 4);
    const AttentionOutput& to = task.output;
    if (to.out) {
      const float inverse = sum == 0 ? 0 : 1 / sum;
      auto* out = static_cast<__nv_bfloat16*>(to.out) + column;
#pragma unroll
      for (int i = 0; i < kSize / 4; ++i)
        *reinterpret_cast<__nv_bfloat162*>(out + 8 * i) =
            __floats2bfloat162_rn(o[4 * i + 2 * r] * inverse, o[4 * i + 2 * r + 1] * inverse);
    }
    if (to.partial.o) {
#pragma unroll
      for (int i = 0; i < kSize / 4; ++i)
        *reinterpret_cast<float2*>(to.partial.o + column + 8 * i) =
            make_float2(o[4 * i + 2 * r], o[4 * i + 2 * r + 1]);
      if (lane % 4 == 0) {
        to.partial.m[at] = rows.max[r] * task.scale;
        to.partial.l[at] = sum;
      }
    }
    if (to.lse && lane % 4 == 0)
      to.lse[at] = sum == 0 ? -INFINITY : rows.max[r] * task.scale + logf(sum);
  }
}

}  // namespace starattn::kernels
