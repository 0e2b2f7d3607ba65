// SPDX-License-Identifier: Apache-2.0
// Who takes which row, and the sum of what was made: a warp a row to choose, a block an expert to
// sort, or a thread a place, and a thread eight columns to add.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <limits>
#include <string>

#include "experts.h"
#include "launch.cuh"
#include "warp.cuh"

namespace starattn::kernels {
namespace {

constexpr int kNowhere = std::numeric_limits<int>::max();
constexpr int kChooseThreads = 128;
constexpr int kSortThreads = 1024;
constexpr int kAddThreads = 128;

// In the order of logits, all above 0. What is not a number is as low as can be, and -0 is 0.
__device__ __forceinline__ std::uint32_t key_of(float logit) {
  const std::uint32_t bits = __float_as_uint(isnan(logit) ? -INFINITY : logit + 0.f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// A lane has kLogitsPerLane experts; those beyond the last count for nothing.
template <int kLogitsPerLane>
__global__ void __launch_bounds__(kChooseThreads)
    choose_experts_kernel(const float* logits, std::int64_t n_rows, int n_experts, int n_chosen,
                          bool renormalise, std::int32_t* experts, float* shares) {
  const int lane = threadIdx.x % 32;
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * (kChooseThreads / 32) + threadIdx.x / 32;
  let_next_kernel_start();
  await_earlier_kernels();
  if (row >= n_rows) return;
  const float* mine = logits + row * n_experts;
  float value[kLogitsPerLane];  // of expert 32 i + lane
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i) {
    const int expert = 32 * i + lane;
    value[i] = expert < n_experts ? mine[expert] : -INFINITY;
    top = fmaxf(top, value[i]);
  }
  top = warp_max(top);
  // The code is short: each layer has to fetch it again.
  float sum = 0, weight[kLogitsPerLane];
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i) {
    weight[i] = 32 * i + lane < n_experts ? expf(value[i] - top) : 0.f;
    sum += weight[i];
  }
  sum = warp_sum(sum);

  std::uint32_t key[kLogitsPerLane];
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i)
    key[i] = 32 * i + lane < n_experts ? key_of(value[i]) : 0;  // as those that are chosen
#pragma unroll 1
  for (int n = 0; n < n_chosen; ++n) {
    std::uint32_t best = 0;
    int at = kNowhere;
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i)
      if (key[i] > best) {
        best = key[i];
        at = 32 * i + lane;
      }
    const std::uint32_t highest = __reduce_max_sync(kAllLanes, best);
    at = __reduce_min_sync(kAllLanes, best == highest ? at : kNowhere);
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i)
      if (32 * i + lane == at) key[i] = 0;
  }

  const auto is_chosen = [&](int i) { return 32 * i + lane < n_experts && key[i] == 0; };
  float of_chosen = 0;
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i) {
    weight[i] /= sum;
    if (is_chosen(i)) of_chosen += weight[i];
  }
  of_chosen = warp_sum(of_chosen);
  std::int64_t next = row * n_chosen;
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i) {
    const unsigned all = __ballot_sync(kAllLanes, is_chosen(i));
    if (is_chosen(i)) {
      const std::int64_t to = next + __popc(all & ((1u << lane) - 1));
      experts[to] = 32 * i + lane;
      shares[to] = renormalise ? weight[i] / of_chosen : weight[i];
    }
    next += __popc(all);
  }
}

// Block e sorts the places of expert e. It counts those of all experts to know where its own begin.
__global__ void __launch_bounds__(kSortThreads)
    sort_places_kernel(const std::int32_t* experts, int n_experts, SortedPlaces to,
                       std::int64_t n_tiles) {
  __shared__ int counts[kMostExperts];
  __shared__ int found[kSortThreads / 32];
  const int expert = blockIdx.x;
  const auto n_places = static_cast<int>(to.n_places);
  let_next_kernel_start();
  await_earlier_kernels();
  for (int i = threadIdx.x; i < n_experts; i += kSortThreads) counts[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < n_places; i += kSortThreads) atomicAdd(&counts[experts[i]], 1);
  __syncthreads();
  int first = 0, first_tile = 0;
  for (int e = 0; e < expert; ++e) {
    first += counts[e];
    first_tile += (counts[e] + to.tile_rows - 1) / to.tile_rows;
  }
  const int n = counts[expert];
  const int n_own = (n + to.tile_rows - 1) / to.tile_rows;
  for (int i = threadIdx.x; i < n_own; i += kSortThreads)
    to.tiles[first_tile + i] = {expert, first + i * to.tile_rows,
                                min(to.tile_rows, n - i * to.tile_rows)};
  if (expert == n_experts - 1)
    for (std::int64_t i = first_tile + n_own + threadIdx.x; i < n_tiles; i += kSortThreads)
      to.tiles[i] = {0, 0, 0};

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int next = first;
  for (int start = 0; start < n_places; start += kSortThreads) {
    const int place = start + threadIdx.x;
    const bool is_mine = place < n_places && experts[place] == expert;
    const unsigned all = __ballot_sync(kAllLanes, is_mine);
    if (lane == 0) found[warp] = __popc(all);
    __syncthreads();
    int at = next;
    for (int i = 0; i < kSortThreads / 32; ++i) {
      if (i < warp) at += found[i];
      next += found[i];
    }
    if (is_mine) {
      at += __popc(all & ((1u << lane) - 1));
      to.places[at] = place;
      to.sorted[place] = at;
    }
    __syncthreads();  // and the counts have been read
  }
}

// The same where places are so few that one block has a thread for each: it counts those that come
// before its own.
__global__ void __launch_bounds__(kSortThreads)
    sort_few_places_kernel(const std::int32_t* experts, SortedPlaces to, int n_tiles) {
  __shared__ int of_place[kSortThreads];
  __shared__ bool begins_tile[kSortThreads];  // the sorted place
  const int place = threadIdx.x, n = static_cast<int>(to.n_places);
  let_next_kernel_start();
  await_earlier_kernels();
  const int mine = place < n ? experts[place] : kNowhere;
  of_place[place] = mine;
  begins_tile[place] = false;
  __syncthreads();
  int at = 0, n_same = 0, n_before = 0;  // places of the same expert, and of them before this one
#pragma unroll 4
  for (int i = 0; i < n; ++i) {
    const int other = of_place[i];
    at += other < mine;
    n_same += other == mine;
    n_before += other == mine && i < place;
  }
  at += n_before;
  const bool begins = place < n && n_before % to.tile_rows == 0;
  if (place < n) {
    to.places[at] = place;
    to.sorted[place] = at;
    begins_tile[at] = begins;
  }
  __syncthreads();
  int tile = 0;  // of this place; beyond the last: of the first that has none
#pragma unroll 4
  for (int i = 0; i < n; ++i) tile += begins_tile[i] && (i < at || place >= n);
  if (begins) to.tiles[tile] = {mine, at, min(to.tile_rows, n_same - n_before)};
  if (place >= n)
    for (int i = tile + place - n; i < n_tiles; i += kSortThreads - n) to.tiles[i] = {0, 0, 0};
}

// A thread has eight columns of a row. What up to kAtOnce experts made of them is on its way
// together.
__global__ void __launch_bounds__(kAddThreads)
    add_made_kernel(uint4* x, const uint4* made, const std::int32_t* sorted, const float* shares,
                    int n_chosen, int n_chunks) {
  constexpr int kAtOnce = 8;
  const std::int64_t row = blockIdx.x;
  const int chunk = static_cast<int>(blockIdx.y) * kAddThreads + static_cast<int>(threadIdx.x);
  let_next_kernel_start();
  await_earlier_kernels();
  if (chunk >= n_chunks) return;
  float sum[8] = {};
#pragma unroll 1
  for (int first = 0; first < n_chosen; first += kAtOnce) {
    const std::int64_t place = row * n_chosen + first;
    uint4 packed[kAtOnce];
    float share[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= n_chosen) continue;
      share[i] = shares[place + i];
      packed[i] = made[sorted[place + i] * static_cast<std::int64_t>(n_chunks) + chunk];
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= n_chosen) continue;
      const auto* values = reinterpret_cast<const __nv_bfloat162*>(&packed[i]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 pair = __bfloat1622float2(values[j]);
        sum[2 * j] = fmaf(share[i], pair.x, sum[2 * j]);
        sum[2 * j + 1] = fmaf(share[i], pair.y, sum[2 * j + 1]);
      }
    }
  }
  uint4& to = x[row * n_chunks + chunk];
  uint4 packed = to;
  auto* values = reinterpret_cast<__nv_bfloat162*>(&packed);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float2 pair = __bfloat1622float2(values[j]);
    values[j] = __floats2bfloat162_rn(pair.x + sum[2 * j], pair.y + sum[2 * j + 1]);
  }
  to = packed;
}

}  // namespace

void choose_experts(const float* logits, std::int64_t n_rows, int n_experts, int n_chosen,
                    bool renormalise, std::int32_t* experts, float* shares, Stream stream) {
  if (n_chosen < 1 || n_chosen > n_experts || n_experts > kMostExperts)
    throw BadShape("choosing experts: 1 <= chosen <= experts <= " + std::to_string(kMostExperts) +
                   " is needed; got " + std::to_string(n_chosen) + " of " +
                   std::to_string(n_experts));
  if (n_rows == 0) return;
  constexpr int kRowsPerBlock = kChooseThreads / 32;
  const auto kernel = n_experts <= 32    ? choose_experts_kernel<1>
                      : n_experts <= 128 ? choose_experts_kernel<4>
                                         : choose_experts_kernel<kMostExperts / 32>;
  launch_overlapping(
      "choosing experts", kernel,
      {static_cast<unsigned>((n_rows + kRowsPerBlock - 1) / kRowsPerBlock), 1, kChooseThreads},
      stream, logits, n_rows, n_experts, n_chosen, renormalise, experts, shares);
}

std::int64_t most_expert_tiles(std::int64_t n_places, int n_experts, int tile_rows) {
  return n_places / tile_rows + (n_places < n_experts ? n_places : n_experts);
}

void sort_places(const std::int32_t* experts, int n_experts, const SortedPlaces& to,
                 Stream stream) {
  if (n_experts < 1 || n_experts > kMostExperts || to.tile_rows < 1 || to.n_places < 0 ||
      to.n_places > kNowhere - kSortThreads)
    throw BadShape("sorting rows by expert: " + std::to_string(to.n_places) + " places of " +
                   std::to_string(n_experts) + " experts, of which there may be 1 to " +
                   std::to_string(kMostExperts));
  if (to.n_places == 0) return;
  const std::int64_t n_tiles = most_expert_tiles(to.n_places, n_experts, to.tile_rows);
  constexpr std::int64_t kFew = kSortThreads / 2;  // the other threads clear tiles
  if (to.n_places <= kFew)
    launch_overlapping("sorting few rows by expert", sort_few_places_kernel, {1, 1, kSortThreads},
                       stream, experts, to, static_cast<int>(n_tiles));
  else
    launch_overlapping("sorting rows by expert", sort_places_kernel,
                       {static_cast<unsigned>(n_experts), 1, kSortThreads}, stream, experts,
                       n_experts, to, n_tiles);
}

void add_made(void* x, const void* made, const std::int32_t* sorted, const float* shares,
              std::int64_t n_rows, int n_chosen, std::int64_t width, Stream stream) {
  if (width <= 0 || width % 8 != 0)
    throw BadShape("adding experts: the width must be a multiple of 8; got " +
                   std::to_string(width));
  if (n_rows == 0) return;
  const auto n_chunks = static_cast<int>(width / 8);
  launch_overlapping("adding experts", add_made_kernel,
                     {static_cast<unsigned>(n_rows),
                      static_cast<unsigned>((n_chunks - 1) / kAddThreads + 1), kAddThreads},
                     stream, static_cast<uint4*>(x), static_cast<const uint4*>(made), sorted,
                     shares, n_chosen, n_chunks);
}

}  // namespace starattn::kernels
