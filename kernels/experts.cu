// SPDX-License-Identifier: Apache-2.0
// Who takes which row, and the sum of what was made: a warp a row to choose, a block an expert to
// sort, or one block for both, and a thread eight columns to add.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "experts.h"
#include "launch.cuh"
#include "warp.cuh"

namespace starattn::kernels {
namespace {

constexpr int kNowhere = std::numeric_limits<int>::max();
constexpr int kChooseThreads = 128;
constexpr int kSortThreads = 1024;
// For one block, in which a row is a bit of 64.
constexpr int kFewRows = 64, kFewPlaces = 512, kFewLogitsPerLane = 8;
constexpr int kAddThreads = 128;

// In the order of logits, all above 0. What is not a number is as low as can be, and -0 is 0.
__device__ __forceinline__ std::uint32_t key_of(float logit) {
  const std::uint32_t bits = __float_as_uint(isnan(logit) ? -INFINITY : logit + 0.f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// Of lower lanes.
__device__ __forceinline__ int sum_before(int x) {
  const int lane = threadIdx.x % 32;
  int sum = x;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int lower = __shfl_up_sync(kAllLanes, sum, distance);
    if (lane >= distance) sum += lower;
  }
  return sum - x;
}

struct Choosing {
  const float* logits;  // [n_rows, n_experts]
  std::int64_t n_rows;
  int n_experts, n_chosen;
  Routing routing;
  std::int32_t* experts;
  float* shares;
};

// A row's, by a warp, whose lanes have kLogitsPerLane experts each; those beyond the last count for
// nothing. tell(i, expert): called for the i-th that is chosen.
template <int kLogitsPerLane, typename Tell>
__device__ __forceinline__ void choose(const Choosing& p, std::int64_t row, const Tell& tell) {
  const int lane = threadIdx.x % 32, n_experts = p.n_experts;
  const float* mine = p.logits + row * n_experts;
  float value[kLogitsPerLane];  // of expert 32 i + lane
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i) {
    const int expert = 32 * i + lane;
    value[i] = expert < n_experts ? mine[expert] : -INFINITY;
    top = fmaxf(top, value[i]);
  }
  // The code is short: each layer has to fetch it again.
  float sum = 0, weight[kLogitsPerLane];
  if (p.routing.is_sigmoid) {
    const float* correction = p.routing.correction;
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i) {
      const int expert = 32 * i + lane;
      weight[i] = expert < n_experts ? 1.f / (1.f + expf(-value[i])) : 0.f;
      value[i] = weight[i] + (correction && expert < n_experts ? correction[expert] : 0.f);
    }
    sum = 1;
  } else {
    top = warp_max(top);
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i) {
      weight[i] = 32 * i + lane < n_experts ? expf(value[i] - top) : 0.f;
      sum += weight[i];
    }
    sum = warp_sum(sum);
  }

  std::uint32_t key[kLogitsPerLane];
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i)
    key[i] = 32 * i + lane < n_experts ? key_of(value[i]) : 0;  // as those that are chosen
#pragma unroll 1
  for (int n = 0; n < p.n_chosen; ++n) {
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
  if (p.routing.is_sigmoid) of_chosen += 1e-20f;  // they may all be 0
  int next = 0;
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i) {
    const unsigned all = __ballot_sync(kAllLanes, is_chosen(i));
    if (is_chosen(i)) {
      const int at = next + __popc(all & ((1u << lane) - 1));
      p.experts[row * p.n_chosen + at] = 32 * i + lane;
      p.shares[row * p.n_chosen + at] =
          (p.routing.renormalise ? weight[i] / of_chosen : weight[i]) * p.routing.scale;
      tell(at, 32 * i + lane);
    }
    next += __popc(all);
  }
}

template <int kLogitsPerLane>
__global__ void __launch_bounds__(kChooseThreads)
    choose_experts_kernel(const __grid_constant__ Choosing p) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * (kChooseThreads / 32) + threadIdx.x / 32;
  let_next_kernel_start();
  await_earlier_kernels();
  if (row < p.n_rows) choose<kLogitsPerLane>(p, row, [](int, int) {});
}

// Block e sorts the places of expert e. It counts those of all experts to know where its own begin.
__global__ void __launch_bounds__(kSortThreads)
    sort_places_kernel(const std::int32_t* experts, int n_experts, SortedPlaces to) {
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
  if (expert == n_experts - 1 && threadIdx.x == 0) *to.n_tiles = first_tile + n_own;

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
    __syncthreads();  // and `found` has been read
  }
}

// Both, of a row alone: its experts ascend, and each has a tile.
template <int kLogitsPerLane>
__global__ void __launch_bounds__(32)
    choose_for_one_kernel(const __grid_constant__ Choosing p,
                          const __grid_constant__ SortedPlaces to) {
  let_next_kernel_start();
  await_earlier_kernels();
  choose<kLogitsPerLane>(p, 0, [&](int i, int expert) {
    to.places[i] = to.sorted[i] = i;
    to.tiles[i] = {expert, i, 1};
    *to.n_tiles = p.n_chosen;
  });
}

// Both, of few rows and experts, by one block. `rows` of an expert has a bit for each row that
// takes it; a lane counts those of kLogitsPerLane experts.
template <int kLogitsPerLane>
__global__ void __launch_bounds__(kSortThreads)
    choose_few_kernel(const __grid_constant__ Choosing p, const __grid_constant__ SortedPlaces to) {
  constexpr int kExperts = 32 * kLogitsPerLane;
  __shared__ unsigned long long rows[kExperts];
  __shared__ int firsts[kExperts], of_place[kFewPlaces];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  let_next_kernel_start();
  for (int i = threadIdx.x; i < kExperts; i += blockDim.x) rows[i] = 0;
  await_earlier_kernels();
  __syncthreads();
  for (int row = warp; row < p.n_rows; row += blockDim.x / 32)
    choose<kLogitsPerLane>(p, row, [&](int i, int expert) {
      of_place[row * p.n_chosen + i] = expert;
      atomicOr(&rows[expert], 1ull << row);
    });
  __syncthreads();
  if (warp == 0) {
    int n[kLogitsPerLane], n_tiles[kLogitsPerLane], sum = 0, tile_sum = 0;
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i) {
      n[i] = __popcll(rows[kLogitsPerLane * lane + i]);
      n_tiles[i] = (n[i] + to.tile_rows - 1) / to.tile_rows;
      sum += n[i];
      tile_sum += n_tiles[i];
    }
    int first = sum_before(sum), tile = sum_before(tile_sum);
    if (lane == 31) *to.n_tiles = tile + tile_sum;
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i) {
      const int expert = kLogitsPerLane * lane + i;
      firsts[expert] = first;
      for (int j = 0; j < n_tiles[i]; ++j)
        to.tiles[tile + j] = {expert, first + j * to.tile_rows,
                              min(to.tile_rows, n[i] - j * to.tile_rows)};
      first += n[i];
      tile += n_tiles[i];
    }
  }
  __syncthreads();
  for (int place = threadIdx.x; place < to.n_places; place += blockDim.x) {
    const int row = place / p.n_chosen, expert = of_place[place];
    const int at = firsts[expert] + __popcll(rows[expert] & ((1ull << row) - 1));
    to.places[at] = place;
    to.sorted[place] = at;
  }
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

void check_sorting(const SortedPlaces& to, int n_experts) {
  if (n_experts < 1 || n_experts > kMostExperts || to.tile_rows < 1 || to.n_places < 0 ||
      to.n_places > kNowhere - kSortThreads)
    throw BadShape("sorting rows by expert: " + std::to_string(to.n_places) + " places of " +
                   std::to_string(n_experts) + " experts, of which there may be 1 to " +
                   std::to_string(kMostExperts));
}

}  // namespace

void choose_experts(const float* logits, std::int64_t n_rows, int n_experts, int n_chosen,
                    const Routing& routing, std::int32_t* experts, float* shares,
                    const SortedPlaces& sorted, Stream stream) {
  if (n_chosen < 1 || n_chosen > n_experts || n_experts > kMostExperts)
    throw BadShape("choosing experts: 1 <= chosen <= experts <= " + std::to_string(kMostExperts) +
                   " is needed; got " + std::to_string(n_chosen) + " of " +
                   std::to_string(n_experts));
  check_sorting(sorted, n_experts);
  if (n_rows == 0) return;
  const Choosing choosing{logits, n_rows, n_experts, n_chosen, routing, experts, shares};
  const auto go = [&](auto logits_per_lane) {
    constexpr int kLogitsPerLane = decltype(logits_per_lane)::value;
    if constexpr (kLogitsPerLane <= kFewLogitsPerLane) {
      if (n_rows == 1)
        return launch_overlapping("choosing experts", choose_for_one_kernel<kLogitsPerLane>,
                                  {1, 1, 32}, stream, choosing, sorted);
      if (n_rows <= kFewRows && sorted.n_places <= kFewPlaces)
        return launch_overlapping(
            "choosing experts", choose_few_kernel<kLogitsPerLane>,
            {1, 1, 32 * std::min(kSortThreads / 32, static_cast<int>(n_rows))}, stream, choosing,
            sorted);
    }
    constexpr int kRowsPerBlock = kChooseThreads / 32;
    launch_overlapping(
        "choosing experts", choose_experts_kernel<kLogitsPerLane>,
        {static_cast<unsigned>((n_rows + kRowsPerBlock - 1) / kRowsPerBlock), 1, kChooseThreads},
        stream, choosing);
    sort_places(experts, n_experts, sorted, stream);
  };
  if (n_experts <= 32) return go(std::integral_constant<int, 1>());
  if (n_experts <= 128) return go(std::integral_constant<int, 4>());
  if (n_experts <= 256) return go(std::integral_constant<int, 8>());
  go(std::integral_constant<int, kMostExperts / 32>());
}

std::int64_t most_expert_tiles(std::int64_t n_places, int n_experts, int tile_rows) {
  return n_places / tile_rows + (n_places < n_experts ? n_places : n_experts);
}

void sort_places(const std::int32_t* experts, int n_experts, const SortedPlaces& to,
                 Stream stream) {
  check_sorting(to, n_experts);
  if (to.n_places == 0) return;
  launch_overlapping("sorting rows by expert", sort_places_kernel,
                     {static_cast<unsigned>(n_experts), 1, kSortThreads}, stream, experts,
                     n_experts, to);
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
