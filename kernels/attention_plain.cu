// SPDX-License-Identifier: Apache-2.0
// Attention for GPUs before Hopper: a warp per (row, head, piece), fp32 arithmetic, a key per lane
// for the scores and head_dim / 32 columns per lane for the output. Tiles of keys are cut as on
// Hopper, so that the pieces of phase 2 mean the same.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "attention_plain.h"
#include "attention_row.cuh"
#include "cuda_check.h"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 4;

struct PlainTask {
  AttentionInput input;
  KvSegment segments[kMaxSegments];
  KeyPieces pieces;
  AttentionOutput output;
};

template <int kHeadDim>
__global__ void attention_plain_kernel(const __grid_constant__ PlainTask task) {
  const AttentionInput& in = task.input;
  const int lane = threadIdx.x % 32;
  const std::int64_t at = blockIdx.x * static_cast<std::int64_t>(kWarps) + threadIdx.x / 32;
  const std::int64_t n_values = in.n_rows * in.shape.n_heads;
  if (at >= n_values * task.pieces.n_pieces) return;
  const std::int64_t value = at % n_values;
  const std::int64_t piece = at / n_values;
  const std::int64_t row = value / in.shape.n_heads;
  const int head = static_cast<int>(value % in.shape.n_heads);
  const int kv_head = head / (in.shape.n_heads / in.shape.n_kv_heads);
  const auto* q = static_cast<const __nv_bfloat16*>(in.q) + row * in.q_row_stride + head * kHeadDim;
  const std::int64_t stride = static_cast<std::int64_t>(in.shape.n_kv_heads) * kHeadDim;

  std::int64_t tile = -piece * task.pieces.tiles_per_piece;  // 0: the piece begins
  PlainRow<kHeadDim> result;
  for (int i = 0; i < in.n_segments; ++i) {
    const KvSegment& segment = task.segments[i];
    const std::int64_t visible = in.causal && i + 1 == in.n_segments
                                     ? segment.n_tokens - in.n_rows + 1 + row
                                     : segment.n_tokens;
    const auto* k = static_cast<const __nv_bfloat16*>(segment.k) + kv_head * kHeadDim;
    const auto* v = static_cast<const __nv_bfloat16*>(segment.v) + kv_head * kHeadDim;
    for (std::int64_t start = 0; start < segment.n_tokens; start += kKeysPerTile, ++tile) {
      if (tile < 0 || tile >= task.pieces.tiles_per_piece) continue;
      const std::int64_t end = min(visible, start + kKeysPerTile);
      for (std::int64_t key = start; key < end; key += 32)
        result.add(q, k + key * stride, v + key * stride, stride,
                   static_cast<int>(min(end - key, static_cast<std::int64_t>(32))), in.scale);
    }
  }

  const AttentionOutput& to = task.output;
  const float inverse = result.l == 0 ? 0.f : 1 / result.l;
  for (int c = 0; c < kHeadDim / 32; ++c) {
    const std::int64_t column = at * kHeadDim + 32 * c + lane;
    if (to.out)
      static_cast<__nv_bfloat16*>(to.out)[column] = __float2bfloat16(result.o[c] * inverse);
    if (to.partial.o) to.partial.o[column] = result.o[c];
  }
  if (lane != 0) return;
  if (to.lse) to.lse[at] = result.m + logf(result.l);
  if (to.partial.o) {
    to.partial.m[at] = result.m;
    to.partial.l[at] = result.l;
  }
}

}  // namespace

void attention_plain(const AttentionInput& in, const AttentionOutput& out, const KeyPieces& pieces,
                     Stream stream) {
  PlainTask task{in, {}, pieces, out};
  for (int i = 0; i < in.n_segments; ++i) task.segments[i] = in.segments[i];
  task.input.segments = nullptr;
  const std::int64_t n = in.n_rows * in.shape.n_heads * pieces.n_pieces;
  const auto kernel =
      in.shape.head_dim == 64 ? attention_plain_kernel<64> : attention_plain_kernel<128>;
  kernel<<<static_cast<unsigned>((n + kWarps - 1) / kWarps), 32 * kWarps, 0, stream>>>(task);
  check_launch("plain attention");
}

}  // namespace starattn::kernels
