// SPDX-License-Identifier: Apache-2.0
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "launch.cuh"
#include "own_tokens.h"
#include "peer_lines.cuh"
#include "value_row.cuh"
#include "warp.cuh"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kVector = 8;  // bf16 values of one 16-byte access

struct OwnRows {
  OwnTokens rows[kMaxOwnRows];
};

// Everything about a launch but the rows' tokens.
struct OwnTask {
  const __nv_bfloat16 *q, *k, *v;
  std::int64_t first_row;  // of this launch
  std::int64_t n_rows;     // of all launches
  AttentionShape shape;
  float scale;
  MergeTask context;
  int root;  // of it
  __nv_bfloat16* out;
  PeerSend send;
  AwaitedParts awaited;
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

// Columns of a key, of a value or of q that a lane has: lane i those from i * kHeadDim / 32 on.
// They come from L2, since the kernel that wrote them may have ended while this one's blocks were
// there.
template <int kHeadDim>
struct LaneColumns {
  static constexpr int kPairs = kHeadDim / 64;
  __nv_bfloat162 pairs[kPairs];

  __device__ __forceinline__ void load(const __nv_bfloat16* row) {
    const auto* from = reinterpret_cast<const std::uint32_t*>(row) + threadIdx.x % 32 * kPairs;
    auto* to = reinterpret_cast<std::uint32_t*>(pairs);
    if constexpr (kPairs == 2)
      *reinterpret_cast<uint2*>(to) = __ldcg(reinterpret_cast<const uint2*>(from));
    else
      *to = __ldcg(from);
  }
};

// Attention of one query row by one warp, fp32, eight tokens at a time. The code is short: each
// layer has to fetch it again.
template <int kHeadDim>
struct WarpRow {
  static constexpr int kAtOnce = 8, kPairs = kHeadDim / 64;
  float o[kHeadDim / 32] = {};  // this lane's columns
  float m = -INFINITY, l = 0;

  // At most eight tokens from `first` on, whose keys and values are on their way together.
  __device__ __forceinline__ void add(const LaneColumns<kHeadDim>& q, const TokenRows& k,
                                      const TokenRows& v, int first, int n, float scale) {
    const int lane = threadIdx.x % 32;
    LaneColumns<kHeadDim> keys[kAtOnce] = {}, values[kAtOnce] = {};
    const std::int64_t v_from_k = v.computed - k.computed, kept_v_from_k = v.kept - k.kept;
    const __nv_bfloat16* key = k.at(first);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i, key += k.stride) {
      if (i >= n) continue;  // the whole warp
      if (first + i == k.n_kept) key = k.at(first + i);
      keys[i].load(key);
      values[i].load(key + (first + i < k.n_kept ? kept_v_from_k : v_from_k));
    }
    float sums[kAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int c = 0; c < kPairs; ++c) {
        const float2 x = __bfloat1622float2(q.pairs[c]), y = __bfloat1622float2(keys[i].pairs[c]);
        sums[i] += x.x * y.x + x.y * y.y;
      }
    }
    const int token = lane / 4;
    const float score = sum_of_token(sums) * scale;  // by all lanes
    const float s = token < n ? score : -INFINITY;
    const float top = fmaxf(m, warp_max(s));
    const float rescale = m == -INFINITY ? 0.f : expf(m - top);
    const float p = token < n ? expf(s - top) : 0.f;
    m = top;
    l = l * rescale + warp_sum(lane % 4 == 0 ? p : 0.f);
#pragma unroll
    for (float& x : o) x *= rescale;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float weight = __shfl_sync(kAllLanes, p, 4 * i);  // 0 from n on
#pragma unroll
      for (int c = 0; c < kPairs; ++c) {
        const float2 value = __bfloat1622float2(values[i].pairs[c]);
        o[2 * c] += weight * value.x;
        o[2 * c + 1] += weight * value.y;
      }
    }
  }

 private:
  // Of token lane / 4, over all lanes: each exchange leaves a lane half as many tokens.
  static __device__ __forceinline__ float sum_of_token(float (&sums)[kAtOnce]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = kAtOnce / 2; half > 0; half /= 2) {
      const int other_lane = 4 * half;
      const bool has_second = lane & other_lane;
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const float mine = has_second ? sums[i + half] : sums[i];
        const float theirs = has_second ? sums[i] : sums[i + half];
        sums[i] = mine + __shfl_xor_sync(kAllLanes, theirs, other_lane);
      }
    }
    float sum = sums[0];
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    return sum + __shfl_xor_sync(kAllLanes, sum, 1);
  }
};

// The items of the context's value row, whole or (kSplits) still in splits. The last warps load
// them first, since the first have most tokens of their own.
template <int kHeadDim, bool kSplits>
struct MergedContext {
  static constexpr int kColumns = kHeadDim / 32;
  Part<kColumns> items[kMaxSegments][32];  // [lane]

  __device__ __forceinline__ void load_items(const MergeTask& from, const AwaitedParts& awaited,
                                             std::int64_t n, std::int64_t row) {
#pragma unroll 1
    for (int i = kWarps - 1 - static_cast<int>(threadIdx.x) / 32; i < from.n_items; i += kWarps) {
      const MergeTask::Item& item = from.items[i];
      if (!kSplits && awaited.n_parts > 0)
        items[i][threadIdx.x % 32] = receive<kColumns>(
            awaited, static_cast<const uint4*>(awaited.lines[i]) + row * kValueRowLines<kHeadDim>);
      else if (kSplits && item.n_splits > 1)
        items[i][threadIdx.x % 32] = merge_splits<kColumns>(item, from.in_pairs, n, row);
      else
        items[i][threadIdx.x % 32] = load<kColumns>(item.splits, row);
    }
  }
  __device__ __forceinline__ void merge_items(const MergeTask& of) {
#pragma unroll 1
    for (int i = 0; i < of.n_merges; ++i) {
      Part<kColumns>& into = items[of.merges[i].into][threadIdx.x % 32];
      into = merge(into, items[of.merges[i].from][threadIdx.x % 32]);
    }
  }
};

// What the warps of a block have made of a row's tokens, to be merged in their order.
template <int kHeadDim>
struct RowParts {
  float o[kWarps][kHeadDim], m[kWarps], l[kWarps];

  // Merged behind a partial whose sums at this thread's column are o and l; the whole warp calls
  // it.
  __device__ __forceinline__ void merge_behind(float& first_m, float& first_l, float& first_o,
                                               int column) const {
    const int lane = threadIdx.x % 32;
    const float mine = lane < kWarps ? m[lane] : first_m;
    const float top = warp_max(mine), weight = merge_weight(mine, top);
    const float first_weight = __shfl_sync(kAllLanes, weight, kWarps);
    first_m = top;
    first_l *= first_weight;
    first_o *= first_weight;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float of_warp = __shfl_sync(kAllLanes, weight, w);
      first_l += l[w] * of_warp;
      first_o += o[w][column] * of_warp;
    }
  }

  __device__ __forceinline__ void put(const WarpRow<kHeadDim>& mine) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < kHeadDim / 32; ++c) o[warp][lane * (kHeadDim / 32) + c] = mine.o[c];
    if (lane > 0) return;
    m[warp] = mine.m;
    l[warp] = mine.l;
  }
};

// A block a (row, head): its warps take eight tokens in turn and are merged in order, after the
// context. The first head of a group also keeps the row's own key and value. kSplits: the context's
// items may be in splits.
template <int kHeadDim, bool kSplits>
__global__ void __launch_bounds__(32 * kWarps)
    own_tokens_kernel(const __grid_constant__ OwnTask task, const __grid_constant__ OwnRows own) {
  __shared__ RowParts<kHeadDim> parts;
  __shared__ MergedContext<kHeadDim, kSplits> context;
  const int warp = threadIdx.x / 32;
  const OwnTokens& tokens = own.rows[blockIdx.x];
  const int head = blockIdx.y, group = task.shape.n_heads / task.shape.n_kv_heads;
  const int kv_head = head / group;
  const std::int64_t row = task.first_row + blockIdx.x;
  const std::int64_t at = row * task.shape.n_heads + head;
  const std::int64_t stride = static_cast<std::int64_t>(task.shape.n_kv_heads) * kHeadDim;
  const std::int64_t first_computed = (row - tokens.n_before) * stride + kv_head * kHeadDim;
  const int n_kept = tokens.n_before - tokens.n_beside, n_tokens = tokens.n_before + 1;
  auto* kept_k = static_cast<__nv_bfloat16*>(tokens.k) + kv_head * kHeadDim;
  auto* kept_v = static_cast<__nv_bfloat16*>(tokens.v) + kv_head * kHeadDim;
  const TokenRows k{kept_k, task.k + first_computed, stride, n_kept};
  const TokenRows v{kept_v, task.v + first_computed, stride, n_kept};
  let_next_kernel_start();
  // Where parts are awaited, the kernel before this one only makes them: all else is there.
  if (task.awaited.n_parts == 0) await_earlier_kernels();

  LaneColumns<kHeadDim> q;
  q.load(task.q + at * kHeadDim);
  constexpr int kAtOnce = WarpRow<kHeadDim>::kAtOnce;
  WarpRow<kHeadDim> mine;
#pragma unroll 1
  for (int first = warp * kAtOnce; first < n_tokens; first += kWarps * kAtOnce)
    mine.add(q, k, v, first, min(kAtOnce, n_tokens - first), task.scale);
  parts.put(mine);
  context.load_items(task.context, task.awaited, task.n_rows * task.shape.n_heads, at);
  await_earlier_kernels();
  if (head % group == 0 && threadIdx.x < 2 * kHeadDim / kVector) {
    const bool is_v = threadIdx.x >= kHeadDim / kVector;
    const int column = threadIdx.x % (kHeadDim / kVector) * kVector;
    const std::int64_t offset = tokens.n_before * stride + column;
    const __nv_bfloat16* from = is_v ? v.computed : k.computed;
    __nv_bfloat16* to = is_v ? kept_v : kept_k;
    *reinterpret_cast<uint4*>(to + offset) = *reinterpret_cast<const uint4*>(from + offset);
  }
  __syncthreads();
  if (task.context.n_merges > 0) {
    if (warp == 0) context.merge_items(task.context);
    __syncthreads();
  }

  const int column = threadIdx.x;
  if (column >= kHeadDim) return;  // whole warps
  const auto& whole = context.items[task.root];
  constexpr int kColumns = kHeadDim / 32;
  float m = whole[0].m, l = whole[0].l, o = whole[column / kColumns].o[column % kColumns];
  parts.merge_behind(m, l, o, column);
  const __nv_bfloat16 result = __float2bfloat16_rn(o / l);
  task.out[at * kHeadDim + column] = result;
  send_number(task.send, row, head * kHeadDim + column, result, true);
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

// A block a (row, head), whose warps take eight tokens in turn as above.
template <int kHeadDim>
__global__ void __launch_bounds__(32 * kWarps)
    tail_kernel(const __grid_constant__ TailTask task, const __grid_constant__ FirstTokens of) {
  __shared__ RowParts<kHeadDim> parts;
  const int warp = threadIdx.x / 32;
  const int head = blockIdx.y, kv_head = head / (task.shape.n_heads / task.shape.n_kv_heads);
  const std::int64_t at = (task.first_row + blockIdx.x) * task.shape.n_heads + head;
  const std::int64_t stride = static_cast<std::int64_t>(task.shape.n_kv_heads) * kHeadDim;
  const TokenRows k{task.k + kv_head * kHeadDim, nullptr, stride, task.n_tokens};
  const TokenRows v{task.v + kv_head * kHeadDim, nullptr, stride, task.n_tokens};
  let_next_kernel_start();
  await_earlier_kernels();

  LaneColumns<kHeadDim> q;
  q.load(task.q + at * kHeadDim);
  constexpr int kAtOnce = WarpRow<kHeadDim>::kAtOnce;
  WarpRow<kHeadDim> mine;
#pragma unroll 1
  for (int first = of.first[blockIdx.x] + warp * kAtOnce; first < task.n_tokens;
       first += kWarps * kAtOnce)
    mine.add(q, k, v, first, min(kAtOnce, task.n_tokens - first), task.scale);
  parts.put(mine);
  __syncthreads();

  const int column = threadIdx.x;
  if (column >= kHeadDim) return;  // whole warps
  float m = -INFINITY, l = 0, o = 0;
  parts.merge_behind(m, l, o, column);
  task.result.o[at * kHeadDim + column] = o;
  if (threadIdx.x > 0) return;
  task.result.m[at] = m;
  task.result.l[at] = l;
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

bool take_splits_with_own_tokens(std::int64_t n_rows, const AttentionShape& shape) {
  constexpr std::int64_t kMost = 256;  // two blocks for each multiprocessor
  return n_rows * shape.n_heads <= kMost;
}

void attend_own_tokens(const void* q, const void* k, const void* v, const OwnTokens* own,
                       std::int64_t n_rows, const AttentionShape& shape, float scale,
                       const MergeTask& context, int root, void* out, Stream stream,
                       const PeerSend& send, const AwaitedParts& awaited) {
  check_shape(shape);
  check_rows(own, n_rows);
  if (root < 0 || root >= context.n_items)
    throw BadShape("own tokens: the context has " + std::to_string(context.n_items) +
                   " partials, of which number " + std::to_string(root) + " is to be the whole");
  if (send.n_peers > 0 && send.n_columns != shape.n_heads * shape.head_dim)
    throw BadShape("own tokens: rows of " + std::to_string(shape.n_heads * shape.head_dim) +
                   " columns do not go into a message of " + std::to_string(send.n_columns));
  if (awaited.n_parts > 0 && awaited.n_parts != context.n_items)
    throw BadShape("own tokens: of " + std::to_string(context.n_items) + " partials " +
                   std::to_string(awaited.n_parts) + " are awaited");
  const bool are_few = take_splits_with_own_tokens(n_rows, shape) && awaited.n_parts == 0;
  for (int i = 0; i < context.n_items; ++i) {
    if (!are_few && context.items[i].n_splits > 1)
      throw BadShape("own tokens: the splits of " + std::to_string(n_rows) + " rows are too many");
  }
  for (std::int64_t first = 0; first < n_rows; first += kMaxOwnRows) {
    const std::int64_t n = std::min<std::int64_t>(kMaxOwnRows, n_rows - first);
    OwnRows rows;
    std::copy_n(own + first, n, rows.rows);
    const OwnTask task{static_cast<const __nv_bfloat16*>(q),
                       static_cast<const __nv_bfloat16*>(k),
                       static_cast<const __nv_bfloat16*>(v),
                       first,
                       n_rows,
                       shape,
                       scale,
                       context,
                       root,
                       static_cast<__nv_bfloat16*>(out),
                       send,
                       awaited};
    const auto kernel =
        are_few
            ? (shape.head_dim == 64 ? own_tokens_kernel<64, true> : own_tokens_kernel<128, true>)
            : (shape.head_dim == 64 ? own_tokens_kernel<64, false> : own_tokens_kernel<128, false>);
    launch_overlapping(
        "attention to own tokens", kernel,
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
