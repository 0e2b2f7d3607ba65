// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <algorithm>

#include "attention_row.cuh"
#include "cuda_check.h"
#include "own_tokens.h"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 4;

struct OwnRows {
  OwnTokens rows[kMaxOwnRows];
};

// A block a row, sixteen bytes a thread and turn.
__global__ void store_kernel(const uint4* k, const uint4* v, const __grid_constant__ OwnRows own,
                             int row_vectors) {
  const OwnTokens& to = own.rows[blockIdx.x];
  const std::int64_t from_at = static_cast<std::int64_t>(blockIdx.x) * row_vectors;
  const std::int64_t to_at = static_cast<std::int64_t>(to.n_before) * row_vectors;
  for (int i = threadIdx.x; i < row_vectors; i += blockDim.x) {
    static_cast<uint4*>(to.k)[to_at + i] = k[from_at + i];
    static_cast<uint4*>(to.v)[to_at + i] = v[from_at + i];
  }
}

// A block a (row, head): its warps take runs of 32 keys in turn and are merged in order.
template <int kHeadDim>
__global__ void attend_kernel(const __nv_bfloat16* q, const __grid_constant__ OwnRows own,
                              AttentionShape shape, float scale, Partial partial) {
  __shared__ float o[kWarps][kHeadDim], m[kWarps], l[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const OwnTokens& tokens = own.rows[blockIdx.x];
  const int head = blockIdx.y;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * shape.n_heads + head;
  const std::int64_t stride = static_cast<std::int64_t>(shape.n_kv_heads) * kHeadDim;
  const int kv_head = head / (shape.n_heads / shape.n_kv_heads);
  const auto* k = static_cast<const __nv_bfloat16*>(tokens.k) + kv_head * kHeadDim;
  const auto* v = static_cast<const __nv_bfloat16*>(tokens.v) + kv_head * kHeadDim;
  const float old_m = partial.m[at], old_l = partial.l[at];

  PlainRow<kHeadDim> mine;
  for (int key = warp * 32; key <= tokens.n_before; key += kWarps * 32)
    mine.add(q + at * kHeadDim, k + key * stride, v + key * stride, stride,
             min(32, tokens.n_before + 1 - key), scale);
  for (int c = 0; c < kHeadDim / 32; ++c) o[warp][32 * c + lane] = mine.o[c];
  if (lane == 0) {
    m[warp] = mine.m;
    l[warp] = mine.l;
  }
  __syncthreads();

  float top = old_m;
  for (const float one : m) top = fmaxf(top, one);
  float weights[kWarps];
  for (int w = 0; w < kWarps; ++w) weights[w] = m[w] == -INFINITY ? 0.f : expf(m[w] - top);
  const float old_weight = old_m == -INFINITY ? 0.f : expf(old_m - top);
  for (int column = threadIdx.x; column < kHeadDim; column += kWarps * 32) {
    float sum = partial.o[at * kHeadDim + column] * old_weight;
    for (int w = 0; w < kWarps; ++w) sum += o[w][column] * weights[w];
    partial.o[at * kHeadDim + column] = sum;
  }
  if (threadIdx.x != 0) return;
  float sum = old_l * old_weight;
  for (int w = 0; w < kWarps; ++w) sum += l[w] * weights[w];
  partial.m[at] = top;
  partial.l[at] = sum;
}

// Calls use(rows, first, n) for at most kMaxOwnRows rows at a time.
template <typename Use>
void in_parts(const OwnTokens* own, std::int64_t n_rows, const Use& use) {
  for (std::int64_t first = 0; first < n_rows; first += kMaxOwnRows) {
    const std::int64_t n = std::min<std::int64_t>(kMaxOwnRows, n_rows - first);
    OwnRows rows;
    std::copy_n(own + first, n, rows.rows);
    use(rows, first, static_cast<unsigned>(n));
  }
}

}  // namespace

void store_own_tokens(const void* k, const void* v, const OwnTokens* own, std::int64_t n_rows,
                      const AttentionShape& shape, Stream stream) {
  check_shape(shape);
  const int row_vectors = shape.n_kv_heads * shape.head_dim / 8;
  in_parts(own, n_rows, [&](const OwnRows& rows, std::int64_t first, unsigned n) {
    store_kernel<<<n, 128, 0, stream>>>(static_cast<const uint4*>(k) + first * row_vectors,
                                        static_cast<const uint4*>(v) + first * row_vectors, rows,
                                        row_vectors);
    check_launch("storing own tokens");
  });
}

void attend_own_tokens(const void* q, const OwnTokens* own, std::int64_t n_rows,
                       const AttentionShape& shape, float scale, const Partial& partial,
                       Stream stream) {
  check_shape(shape);
  in_parts(own, n_rows, [&](const OwnRows& rows, std::int64_t first, unsigned n) {
    const std::int64_t values = first * shape.n_heads;
    const Partial part{partial.o + values * shape.head_dim, partial.m + values, partial.l + values};
    const auto* first_q = static_cast<const __nv_bfloat16*>(q) + values * shape.head_dim;
    const dim3 grid(n, static_cast<unsigned>(shape.n_heads));
    if (shape.head_dim == 64)
      attend_kernel<64><<<grid, kWarps * 32, 0, stream>>>(first_q, rows, shape, scale, part);
    else
      attend_kernel<128><<<grid, kWarps * 32, 0, stream>>>(first_q, rows, shape, scale, part);
    check_launch("attention to own tokens");
  });
}

}  // namespace starattn::kernels
