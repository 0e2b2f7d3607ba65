// SPDX-License-Identifier: Apache-2.0
// Partials of one (row, head) pair, a "value row", by a warp whose lanes have its columns in turn.
#pragma once

#include "attention_merge.h"
#include "merging.cuh"
#include "peer_lines.cuh"
#include "warp.cuh"

namespace starattn::kernels {

// A lane's columns of one value row, with the row's m and l.
template <int kColumns>
struct Part {
  float o[kColumns] = {};
  float m = -INFINITY, l = 0;
};

template <int kColumns>
__device__ __forceinline__ void load_columns(const float* o, float (&to)[kColumns]) {
  if constexpr (kColumns == 4) {
    const float4 values = *reinterpret_cast<const float4*>(o);
    to[0] = values.x, to[1] = values.y, to[2] = values.z, to[3] = values.w;
  } else {
    const float2 values = *reinterpret_cast<const float2*>(o);
    to[0] = values.x, to[1] = values.y;
  }
}

template <int kColumns>
__device__ __forceinline__ Part<kColumns> load(const Partial& from, std::int64_t row) {
  Part<kColumns> part;
  load_columns(from.o + (row * 32 + threadIdx.x % 32) * kColumns, part.o);
  part.m = from.m[row];
  part.l = from.l[row];
  return part;
}

template <int kColumns>
__device__ __forceinline__ void store(const Part<kColumns>& part, const Partial& to,
                                      std::int64_t row) {
  const int lane = threadIdx.x % 32;
  float* o = to.o + (row * 32 + lane) * kColumns;
  if constexpr (kColumns == 4)
    *reinterpret_cast<float4*>(o) = {part.o[0], part.o[1], part.o[2], part.o[3]};
  else
    *reinterpret_cast<float2*>(o) = {part.o[0], part.o[1]};
  if (lane != 0) return;
  to.m[row] = part.m;
  to.l[row] = part.l;
}

// As lines: two columns each, then m and l.
template <int kColumns>
__device__ __forceinline__ void send(const Part<kColumns>& part, uint4* lines, std::uint32_t flag) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int c = 0; c < kColumns; c += 2)
    store_line(lines + (lane * kColumns + c) / 2, __float_as_uint(part.o[c]),
               __float_as_uint(part.o[c + 1]), flag);
  if (lane == 0)
    store_line(lines + 16 * kColumns, __float_as_uint(part.m), __float_as_uint(part.l), flag);
}

template <int kColumns>
__device__ __forceinline__ Part<kColumns> receive(const PeerWait& p, const uint4* lines) {
  const uint4* mine = lines + threadIdx.x % 32 * kColumns / 2;
  uint4 pairs[kColumns / 2], sums;
  await(p, [&] {
    sums = load_line(lines + 16 * kColumns);
    bool are_there = sums.y == p.flag && sums.w == p.flag;
#pragma unroll
    for (int c = 0; c < kColumns / 2; ++c) {
      pairs[c] = load_line(mine + c);
      are_there &= pairs[c].y == p.flag && pairs[c].w == p.flag;
    }
    return are_there;
  });
  Part<kColumns> part;
#pragma unroll
  for (int c = 0; c < kColumns / 2; ++c) {
    part.o[2 * c] = __uint_as_float(pairs[c].x);
    part.o[2 * c + 1] = __uint_as_float(pairs[c].z);
  }
  part.m = __uint_as_float(sums.x);
  part.l = __uint_as_float(sums.z);
  return part;
}

template <int kColumns>
__device__ __forceinline__ Part<kColumns> merge(const Part<kColumns>& a, const Part<kColumns>& b) {
  Part<kColumns> both;
  both.m = fmaxf(a.m, b.m);
  const float wa = merge_weight(a.m, both.m), wb = merge_weight(b.m, both.m);
#pragma unroll
  for (int c = 0; c < kColumns; ++c) both.o[c] = merged(a.o[c], wa, b.o[c], wb);
  both.l = merged(a.l, wa, b.l, wb);
  return both;
}

// Eight pairs of splits from `first` on, at `o`, a split `stride` numbers behind the other; with
// kMerged each split is a pair that was merged before. All loads are on their way together. Lanes
// 2 i and 2 i + 1 have the weights of pair i's splits: no exponential is taken twice, and the code
// is short, since every layer has to fetch it again.
template <int kColumns, bool kMerged>
__device__ __forceinline__ Part<kColumns> merge_eight(const MergeTask::Item& item, int first,
                                                      std::int64_t n, std::int64_t row) {
  constexpr int kPairs = 8, kOfPair = kMerged ? 1 : 2;
  const int lane = threadIdx.x % 32, n_left = item.n_splits - first;
  const std::int64_t value_row = first * n + row, stride = n * 32 * kColumns;
  const float* at = item.splits.o + (value_row * 32 + lane) * kColumns;
  float o[kPairs * kOfPair][kColumns] = {};
#pragma unroll
  for (int i = 0; i < kPairs * kOfPair; ++i, at += stride)
    if (i < n_left) load_columns(at, o[i]);
  const int own = lane / (3 - kOfPair);
  const bool has_own = (!kMerged || lane % 2 == 0) && own < min(n_left, kPairs * kOfPair);
  const float m = has_own ? item.splits.m[value_row + own * n] : -INFINITY;
  const float l = has_own ? item.splits.l[value_row + own * n] : 0.f;
  const float of_pair = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 1));
  const float weight = merge_weight(m, of_pair);
  const float pair_l = merged(l, weight, __shfl_xor_sync(kAllLanes, l, 1),
                              __shfl_xor_sync(kAllLanes, weight, 1));  // on even lanes
  Part<kColumns> eight;
  eight.m = warp_max(of_pair);
  const float pair_weight = merge_weight(of_pair, eight.m);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const float both = __shfl_sync(kAllLanes, pair_weight, 2 * i);
    eight.l = __fmaf_rn(__shfl_sync(kAllLanes, pair_l, 2 * i), both, eight.l);
    const float a = kMerged ? 0.f : __shfl_sync(kAllLanes, weight, 2 * i);
    const float b = kMerged ? 0.f : __shfl_sync(kAllLanes, weight, 2 * i + 1);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float x = kMerged ? o[i][c] : merged(o[2 * i][c], a, o[2 * i + kOfPair - 1][c], b);
      eight.o[c] = __fmaf_rn(x, both, eight.o[c]);
    }
  }
  return eight;
}

// The item's value row: splits merge in pairs, then eight pairs at a time, in order.
template <int kColumns>
__device__ __forceinline__ Part<kColumns> merge_splits(const MergeTask::Item& item, bool in_pairs,
                                                       std::int64_t n, std::int64_t row) {
  Part<kColumns> result;
#pragma unroll 1
  for (int first = 0; first < item.n_splits; first += in_pairs ? 8 : 16) {
    const Part<kColumns> eight = in_pairs ? merge_eight<kColumns, true>(item, first, n, row)
                                          : merge_eight<kColumns, false>(item, first, n, row);
    result = first == 0 ? eight : merge(result, eight);
  }
  return result;
}

}  // namespace starattn::kernels
