// SPDX-License-Identifier: Apache-2.0
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "launch.cuh"
#include "own_tokens.h"
#include "warp.cuh"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 4;
constexpr int kVector = 8;  // bf16 values of one 16-byte access

struct OwnRows {
  OwnTokens rows[kMaxOwnRows];
};

// Everything about a launch but the rows' tokens.
struct OwnTask {
  const __nv_bfloat16 *q, *k, *v;
  std::int64_t first_row;  // of this launch
  AttentionShape shape;
  float scale;
  Partial context;
  __nv_bfloat16* out;
};

// Keys or values of one kv head: a row's query keeps them, but for those of this launch's step.
struct TokenRows {
  const __nv_bfloat16* kept;      // token 0 of the query
  const __nv_bfloat16* computed;  // token 0 as if all were rows of this step
  std::int64_t stride;
  int n_kept;

  __device__ const __nv_bfloat16* at(int token) const {
    return (token < n_kept ? kept : computed) + token * stride;
  }
};

// q in shared memory. All of the key is on its way before the first product.
template <int kHeadDim>
__device__ float dot(const float (&q)[kHeadDim], const __nv_bfloat16* key) {
  uint4 vectors[kHeadDim / kVector];
#pragma unroll
  for (int i = 0; i < kHeadDim / kVector; ++i) vectors[i] = reinterpret_cast<const uint4*>(key)[i];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kHeadDim / kVector; ++i) {
    const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&vectors[i]);
#pragma unroll
    for (int j = 0; j < kVector / 2; ++j) {
      const float2 k = __bfloat1622float2(pairs[j]);
      sum += q[i * kVector + 2 * j] * k.x + q[i * kVector + 2 * j + 1] * k.y;
    }
  }
  return sum;
}

// Attention of one query row by one warp, fp32: a key a lane for the scores; for the output a lane
// has the pairs of columns 2 * lane + 64 * c.
template <int kHeadDim>
struct WarpRow {
  float o[kHeadDim / 32] = {};
  float m = -INFINITY, l = 0;

  // At most 32 tokens from `first` on.
  __device__ void add(const float (&q)[kHeadDim], const TokenRows& k, const TokenRows& v, int first,
                      int n, float scale) {
    const int lane = threadIdx.x % 32;
    const float s = lane < n ? dot(q, k.at(first + lane)) * scale : -INFINITY;
    const float top = fmaxf(m, warp_max(s));
    const float rescale = m == -INFINITY ? 0.f : expf(m - top);
    const float p = lane < n ? expf(s - top) : 0.f;
    m = top;
    l = l * rescale + warp_sum(p);
    for (float& x : o) x *= rescale;
    constexpr int kAtOnce = 8;  // values on their way
    for (int i = 0; i < n; i += kAtOnce) {
      __nv_bfloat162 values[kAtOnce][kHeadDim / 64];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const auto* value =
            reinterpret_cast<const __nv_bfloat162*>(v.at(first + min(i + j, n - 1))) + lane;
#pragma unroll
        for (int c = 0; c < kHeadDim / 64; ++c) values[j][c] = value[32 * c];
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const float weight = __shfl_sync(0xffffffff, p, i + j);  // 0 from n on
#pragma unroll
        for (int c = 0; c < kHeadDim / 64; ++c) {
          const float2 value = __bfloat1622float2(values[j][c]);
          o[2 * c] += weight * value.x;
          o[2 * c + 1] += weight * value.y;
        }
      }
    }
  }
};

// A block a (row, head): its warps take runs of 32 tokens in turn and are merged in order, after
// the context. The first head of a group also keeps the row's own key and value.
template <int kHeadDim>
__global__ void own_tokens_kernel(const __grid_constant__ OwnTask task,
                                  const __grid_constant__ OwnRows own) {
  __shared__ float q[kHeadDim], o[kWarps][kHeadDim], m[kWarps], l[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const OwnTokens& tokens = own.rows[blockIdx.x];
  const int head = blockIdx.y, group = task.shape.n_heads / task.shape.n_kv_heads;
  const int kv_head = head / group;
  const std::int64_t row = task.first_row + blockIdx.x;
  const std::int64_t at = row * task.shape.n_heads + head;
  const std::int64_t stride = static_cast<std::int64_t>(task.shape.n_kv_heads) * kHeadDim;
  const std::int64_t first_computed = (row - tokens.n_before) * stride + kv_head * kHeadDim;
  const int n_kept = tokens.n_before - tokens.n_beside;
  auto* kept_k = static_cast<__nv_bfloat16*>(tokens.k) + kv_head * kHeadDim;
  auto* kept_v = static_cast<__nv_bfloat16*>(tokens.v) + kv_head * kHeadDim;
  const TokenRows k{kept_k, task.k + first_computed, stride, n_kept};
  const TokenRows v{kept_v, task.v + first_computed, stride, n_kept};
  let_next_kernel_start();
  await_earlier_kernels();
  const float context_m = task.context.m[at], context_l = task.context.l[at];

  if (head % group == 0 && threadIdx.x < 2 * kHeadDim / kVector) {
    const bool is_v = threadIdx.x >= kHeadDim / kVector;
    const int column = threadIdx.x % (kHeadDim / kVector) * kVector;
    const std::int64_t offset = tokens.n_before * stride + column;
    const __nv_bfloat16* from = is_v ? v.computed : k.computed;
    __nv_bfloat16* to = is_v ? kept_v : kept_k;
    *reinterpret_cast<uint4*>(to + offset) = *reinterpret_cast<const uint4*>(from + offset);
  }

  for (int i = threadIdx.x; i < kHeadDim; i += kWarps * 32)
    q[i] = __bfloat162float(task.q[at * kHeadDim + i]);
  __syncthreads();
  WarpRow<kHeadDim> mine;
  for (int first = warp * 32; first <= tokens.n_before; first += kWarps * 32)
    mine.add(q, k, v, first, min(32, tokens.n_before + 1 - first), task.scale);
  for (int c = 0; c < kHeadDim / 64; ++c) {
    o[warp][64 * c + 2 * lane] = mine.o[2 * c];
    o[warp][64 * c + 2 * lane + 1] = mine.o[2 * c + 1];
  }
  if (lane == 0) {
    m[warp] = mine.m;
    l[warp] = mine.l;
  }
  __syncthreads();

  float top = context_m;
  for (const float one : m) top = fmaxf(top, one);
  float weights[kWarps];
  for (int w = 0; w < kWarps; ++w) weights[w] = m[w] == -INFINITY ? 0.f : expf(m[w] - top);
  const float context_weight = context_m == -INFINITY ? 0.f : expf(context_m - top);
  float total = context_l * context_weight;
  for (int w = 0; w < kWarps; ++w) total += l[w] * weights[w];
  for (int column = threadIdx.x; column < kHeadDim; column += kWarps * 32) {
    float sum = task.context.o[at * kHeadDim + column] * context_weight;
    for (int w = 0; w < kWarps; ++w) sum += o[w][column] * weights[w];
    task.out[at * kHeadDim + column] = __float2bfloat16_rn(sum / total);
  }
}

struct FirstTokens {
  int first[kMaxOwnRows];
};

struct TailTask {
  const __nv_bfloat16 *q, *k, *v;
  int n_tokens;
  std::int64_t first_row;  // of this launch
  AttentionShape shape;
  float scale;
  Partial result;
};

// A block a (row, head), whose warps take runs of 32 tokens as above.
template <int kHeadDim>
__global__ void tail_kernel(const __grid_constant__ TailTask task,
                            const __grid_constant__ FirstTokens of) {
  __shared__ float q[kHeadDim], o[kWarps][kHeadDim], m[kWarps], l[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int head = blockIdx.y, kv_head = head / (task.shape.n_heads / task.shape.n_kv_heads);
  const std::int64_t at = (task.first_row + blockIdx.x) * task.shape.n_heads + head;
  const std::int64_t stride = static_cast<std::int64_t>(task.shape.n_kv_heads) * kHeadDim;
  const TokenRows k{task.k + kv_head * kHeadDim, nullptr, stride, task.n_tokens};
  const TokenRows v{task.v + kv_head * kHeadDim, nullptr, stride, task.n_tokens};
  let_next_kernel_start();
  await_earlier_kernels();

  for (int i = threadIdx.x; i < kHeadDim; i += kWarps * 32)
    q[i] = __bfloat162float(task.q[at * kHeadDim + i]);
  __syncthreads();
  WarpRow<kHeadDim> mine;
  for (int first = of.first[blockIdx.x] + warp * 32; first < task.n_tokens; first += kWarps * 32)
    mine.add(q, k, v, first, min(32, task.n_tokens - first), task.scale);
  for (int c = 0; c < kHeadDim / 64; ++c) {
    o[warp][64 * c + 2 * lane] = mine.o[2 * c];
    o[warp][64 * c + 2 * lane + 1] = mine.o[2 * c + 1];
  }
  if (lane == 0) {
    m[warp] = mine.m;
    l[warp] = mine.l;
  }
  __syncthreads();

  float top = -INFINITY;
  for (const float one : m) top = fmaxf(top, one);
  float weights[kWarps], total = 0;
  for (int w = 0; w < kWarps; ++w) {
    weights[w] = m[w] == -INFINITY ? 0.f : expf(m[w] - top);
    total += l[w] * weights[w];
  }
  for (int column = threadIdx.x; column < kHeadDim; column += kWarps * 32) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += o[w][column] * weights[w];
    task.result.o[at * kHeadDim + column] = sum;
  }
  if (threadIdx.x > 0) return;
  task.result.m[at] = top;
  task.result.l[at] = total;
}

void check_rows(const OwnTokens* own, std::int64_t n_rows) {
  for (std::int64_t i = 0; i < n_rows; ++i) {
    if (own[i].n_beside >= 0 && own[i].n_beside <= own[i].n_before && own[i].n_beside <= i)
      continue;
    throw BadShape("own tokens: of the " + std::to_string(own[i].n_before) + " tokens before row " +
                   std::to_string(i) + ", " + std::to_string(own[i].n_beside) +
                   " cannot be the rows just before it");
  }
}

}  // namespace

void attend_own_tokens(const void* q, const void* k, const void* v, const OwnTokens* own,
                       std::int64_t n_rows, const AttentionShape& shape, float scale,
                       const Partial& context, void* out, Stream stream) {
  check_shape(shape);
  check_rows(own, n_rows);
  for (std::int64_t first = 0; first < n_rows; first += kMaxOwnRows) {
    const std::int64_t n = std::min<std::int64_t>(kMaxOwnRows, n_rows - first);
    OwnRows rows;
    std::copy_n(own + first, n, rows.rows);
    const OwnTask task{static_cast<const __nv_bfloat16*>(q),
                       static_cast<const __nv_bfloat16*>(k),
                       static_cast<const __nv_bfloat16*>(v),
                       first,
                       shape,
                       scale,
                       context,
                       static_cast<__nv_bfloat16*>(out)};
    launch_overlapping(
        "attention to own tokens",
        shape.head_dim == 64 ? own_tokens_kernel<64> : own_tokens_kernel<128>,
        {static_cast<unsigned>(n), static_cast<unsigned>(shape.n_heads), kWarps * 32}, stream, task,
        rows);
  }
}

void attend_tail(const void* q, const KvSegment& tail, const std::int64_t* first,
                 std::int64_t n_rows, const AttentionShape& shape, float scale,
                 const Partial& result, Stream stream) {
  check_shape(shape);
  if (tail.n_tokens < 0 || tail.n_tokens > kMostTailTokens)
    throw BadShape("attention to a tail: at most " + std::to_string(kMostTailTokens) +
                   " tokens; got " + std::to_string(tail.n_tokens));
  for (std::int64_t done = 0; done < n_rows; done += kMaxOwnRows) {
    const std::int64_t n = std::min<std::int64_t>(kMaxOwnRows, n_rows - done);
    FirstTokens of;
    for (std::int64_t i = 0; i < n; ++i) {
      if (first[done + i] < 0)
        throw BadShape("attention to a tail: row " + std::to_string(done + i) +
                       " begins before the first token");
      of.first[i] = static_cast<int>(std::min(first[done + i], tail.n_tokens));
    }
    const TailTask task{static_cast<const __nv_bfloat16*>(q),
                        static_cast<const __nv_bfloat16*>(tail.k),
                        static_cast<const __nv_bfloat16*>(tail.v),
                        static_cast<int>(tail.n_tokens),
                        done,
                        shape,
                        scale,
                        result};
    launch_overlapping(
        "attention to a tail", shape.head_dim == 64 ? tail_kernel<64> : tail_kernel<128>,
        {static_cast<unsigned>(n), static_cast<unsigned>(shape.n_heads), kWarps * 32}, stream, task,
        of);
  }
}

}  // namespace starattn::kernels
