// SPDX-License-Identifier: Apache-2.0
// One block a row, which stays in L2 while the block goes over it: once for the highest logit, once
// for the weights and their sum, then some twenty times to find the lightest weight of the nucleus,
// and once to draw. Nothing is sorted. The highest of all of a row's logits is also that of the
// highest of its parts, which is all that devices tell each other where nothing is drawn.
#include <cuda_runtime.h>

#include <cfloat>
#include <cmath>
#include <limits>
#include <string>

#include "launch.cuh"
#include "next_token.h"
#include "warp.cuh"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kNowhere = std::numeric_limits<int>::max();

struct Place {
  float value;
  int at;
};

__device__ __forceinline__ Place better(Place a, Place b) {
  return b.value > a.value || (b.value == a.value && b.at < a.at) ? b : a;
}

__device__ __forceinline__ Place highest_of_warp(Place mine) {
  for (int offset = 16; offset > 0; offset /= 2)
    mine = better(mine, {__shfl_xor_sync(kAllLanes, mine.value, offset),
                         __shfl_xor_sync(kAllLanes, mine.at, offset)});
  return mine;
}

// allowed: of the row; nullptr: every token is.
__device__ __forceinline__ bool is_allowed(const std::uint32_t* allowed, int token) {
  return !allowed || (allowed[token / 32] >> (token % 32) & 1) != 0;
}

// The first highest value of the row that is allowed, of tokens first, first + 1, ...: nowhere if
// none is, and not a number where one is not finite. On every thread.
__device__ Place first_highest(const float* row, int n, int first, const std::uint32_t* allowed) {
  __shared__ Place places[kWarps];
  Place mine{-INFINITY, kNowhere};
  bool is_finite = true;
#pragma unroll 16
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const float value = row[i];
    is_finite &= fabsf(value) <= FLT_MAX;
    if (is_allowed(allowed, first + i) && (value > mine.value || mine.at == kNowhere))
      mine = {value, first + i};
  }
  mine = highest_of_warp(mine);
  if (threadIdx.x % 32 == 0) places[threadIdx.x / 32] = mine;
  if (!__syncthreads_and(is_finite)) return {NAN, kNowhere};
  return highest_of_warp(places[threadIdx.x % 32]);
}

__device__ __forceinline__ int token_at(const Place& best) {
  return best.at == kNowhere ? -1 : best.at;
}

// A block has a part of a row.
__global__ void __launch_bounds__(kThreads)
    highest_kernel(const float* logits, int n, int first, const std::uint32_t* allowed,
                   int allowed_words, Highest* to) {
  let_next_kernel_start();
  await_earlier_kernels();
  const std::int64_t row = blockIdx.x;
  const int n_each = (n + kHighestParts - 1) / kHighestParts;
  const int begin = min(n, static_cast<int>(blockIdx.y) * n_each), end = min(n, begin + n_each);
  if (allowed) allowed += row * allowed_words;
  const Place best = first_highest(logits + row * n + begin, end - begin, first + begin, allowed);
  if (threadIdx.x == 0) to[row * kHighestParts + blockIdx.y] = {best.value, token_at(best)};
}

// A thread has a row of parts [n_rows, n_parts].
__global__ void best_part_kernel(const Highest* parts, int n_rows, int n_parts,
                                 std::int32_t* token) {
  let_next_kernel_start();
  await_earlier_kernels();
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= n_rows) return;
  Place best{-INFINITY, kNowhere};
  bool is_finite = true;
  for (int i = 0; i < n_parts; ++i) {
    const Highest part = parts[static_cast<std::int64_t>(row) * n_parts + i];
    is_finite &= !isnan(part.logit);
    if (part.token >= 0) best = better(best, {part.logit, part.token});
  }
  token[row] = is_finite ? token_at(best) : -1;
}

// The sum over all threads, on each of them, always added in the same order.
__device__ double sum_of_block(double mine) {
  __shared__ double sums[kWarps];
  mine = warp_sum(mine);
  __syncthreads();  // the last sum has been read
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = mine;
  __syncthreads();
  return warp_sum(sums[threadIdx.x % 32]);
}

// Weights are 0 to 1, so their bits have their order.
struct Split {
  double mass_above = 0;             // of the weights from a bound on
  std::uint32_t least_above = ~0u;   // the bits of the lightest of these
  std::uint32_t highest_below = 0u;  // of the heaviest of the others
};

__device__ Split split_at(std::uint32_t bound, const float* weights, int n) {
  __shared__ std::uint32_t above[kWarps], below[kWarps];
  Split mine;
  float mass = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const std::uint32_t bits = __float_as_uint(weights[i]);
    const bool is_above = bits >= bound;
    mass += is_above ? weights[i] : 0.f;
    mine.least_above = min(mine.least_above, is_above ? bits : ~0u);
    mine.highest_below = max(mine.highest_below, is_above ? 0u : bits);
  }
  above[threadIdx.x / 32] = __reduce_min_sync(kAllLanes, mine.least_above);
  below[threadIdx.x / 32] = __reduce_max_sync(kAllLanes, mine.highest_below);
  mine.mass_above = sum_of_block(mass);
  mine.least_above = __reduce_min_sync(kAllLanes, above[threadIdx.x % 32]);
  mine.highest_below = __reduce_max_sync(kAllLanes, below[threadIdx.x % 32]);
  __syncthreads();  // and have been read
  return mine;
}

// The tokens that are drawn from: all above `least` and the first n_equal of that very weight.
struct Nucleus {
  float least;
  int n_equal;
};

// Halves the weights' bits and steps on to a weight that exists, until one is left.
__device__ Nucleus nucleus(const float* weights, int n, double enough) {
  std::uint32_t low = 0, high = __float_as_uint(1.f);  // the least weight is one of low .. high
  double above = 0;                                    // mass of those beyond high
  while (low < high) {
    const std::uint32_t middle = high - (high - low) / 2;
    const Split split = split_at(middle, weights, n);
    if (split.mass_above >= enough) {
      low = split.least_above;
    } else {
      high = split.highest_below;
      above = split.mass_above;
    }
  }
  const float least = __uint_as_float(high);
  const double missing = least > 0 ? ceil((enough - above) / least) : 1;
  return {least, missing <= 1 ? 1 : missing >= n ? n : static_cast<int>(missing)};
}

// The token that `unit` of the nucleus' mass falls on, in the order of ids; on one thread, the
// others return kNowhere. Each warp owns consecutive tokens.
__device__ int draw_from(const float* weights, int n, const Nucleus& kept, double unit) {
  __shared__ double masses[kWarps];
  __shared__ int equals[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int n_each = (n + kThreads - 1) / kThreads * 32;
  const int first = min(n, warp * n_each), end = min(n, first + n_each);
  double mass = 0;
  int n_equal = 0;
#pragma unroll 8
  for (int i = first + lane; i < end; i += 32) {
    mass += weights[i] > kept.least ? weights[i] : 0.f;
    n_equal += weights[i] == kept.least;
  }
  mass = warp_sum(mass);
  n_equal = __reduce_add_sync(kAllLanes, n_equal);
  if (lane == 0) {
    masses[warp] = mass;
    equals[warp] = n_equal;
  }
  __syncthreads();
  double before = 0, through = 0, total = 0;  // this warp's share is before .. through
  int rank = 0;                               // of this warp's first token of the least weight
  for (int i = 0, n_before = 0; i < kWarps; ++i) {
    if (i == warp) {
      before = total;
      rank = n_before;
    }
    const int n_kept = max(0, min(kept.n_equal - n_before, equals[i]));
    total += masses[i] + n_kept * static_cast<double>(kept.least);
    if (i == warp) through = total;
    n_before += equals[i];
  }
  const double target = unit * total;
  if (target < before || target >= through) return kNowhere;

  double passed = before;
  for (int start = first; start < end; start += 32) {
    const int i = start + lane;
    const float weight = i < end ? weights[i] : -1.f;
    const unsigned equal = __ballot_sync(kAllLanes, weight == kept.least);
    const bool is_kept =  // never what weighs nothing
        weight > kept.least || (weight == kept.least && weight > 0 &&
                                rank + __popc(equal & ((1u << lane) - 1)) < kept.n_equal);
    rank += __popc(equal);
    double sum = is_kept ? weight : 0;  // of this step, up to and with this lane
    for (int offset = 1; offset < 32; offset *= 2) {
      const double other = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= offset) sum += other;
    }
    const unsigned beyond = __ballot_sync(kAllLanes, is_kept && passed + sum > target);
    if (beyond) return lane == __ffs(beyond) - 1 ? i : kNowhere;
    passed += __shfl_sync(kAllLanes, sum, 31);
  }
  return kNowhere;
}

__global__ void __launch_bounds__(kThreads)
    next_token_kernel(float* logits, int n, const Draw* draws, const std::uint32_t* allowed,
                      std::int32_t* token) {
  let_next_kernel_start();
  await_earlier_kernels();
  float* row = logits + static_cast<std::int64_t>(blockIdx.x) * n;
  const Draw draw = draws[blockIdx.x];
  if (allowed) allowed += static_cast<std::int64_t>(blockIdx.x) * ((n + 31) / 32);
  const Place best = first_highest(row, n, 0, allowed);
  if (threadIdx.x == 0) token[blockIdx.x] = token_at(best);  // also if a sum below is rounded up
  if (draw.temperature <= 0 || best.at == kNowhere) return;

  const float temperature = fmaxf(static_cast<float>(draw.temperature), FLT_MIN);
  float sum = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < n; i += kThreads) {
    row[i] = is_allowed(allowed, i) ? expf((row[i] - best.value) / temperature) : 0.f;
    sum += row[i];
  }
  const double total = sum_of_block(sum);  // and all weights are written
  const Nucleus kept = draw.top_p < 1 ? nucleus(row, n, draw.top_p * total) : Nucleus{0, n};
  const int drawn = draw_from(row, n, kept, draw.unit);
  if (drawn != kNowhere) token[blockIdx.x] = drawn;
}

void check_size(std::int64_t n, std::int64_t least) {
  if (n < least || n > kNowhere - kThreads)
    throw BadShape("the next token: a row must have 1 to 2^31 - 1025 logits; got " +
                   std::to_string(n));
}

}  // namespace

void next_tokens(float* logits, std::int64_t n_rows, std::int64_t n, const Draw* draws,
                 const std::uint32_t* allowed, std::int32_t* token, Stream stream) {
  check_size(n, 1);
  if (n_rows == 0) return;
  launch_overlapping("the next token", next_token_kernel,
                     {static_cast<unsigned>(n_rows), 1, kThreads}, stream, logits,
                     static_cast<int>(n), draws, allowed, token);
}

void highest_logits(const float* logits, std::int64_t n_rows, std::int64_t n, std::int32_t first,
                    const std::uint32_t* allowed, std::int64_t allowed_words, Highest* to,
                    Stream stream) {
  check_size(n + first, 0);
  if (n_rows == 0) return;
  launch_overlapping("the highest logits", highest_kernel,
                     {static_cast<unsigned>(n_rows), kHighestParts, kThreads}, stream, logits,
                     static_cast<int>(n), static_cast<int>(first), allowed,
                     static_cast<int>(allowed_words), to);
}

void best_parts(const Highest* parts, std::int64_t n_rows, std::int64_t n_parts,
                std::int32_t* token, Stream stream) {
  if (n_rows == 0) return;
  constexpr int kRowsOfBlock = 32;
  const auto n_blocks = static_cast<unsigned>((n_rows + kRowsOfBlock - 1) / kRowsOfBlock);
  launch_overlapping("the highest of all logits", best_part_kernel, {n_blocks, 1, kRowsOfBlock},
                     stream, parts, static_cast<int>(n_rows), static_cast<int>(n_parts), token);
}

}  // namespace starattn::kernels
