// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <type_traits>

#include "launch.cuh"
#include "peer_exchange.h"
#include "peer_lines.cuh"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;

// Two words of a strip that follow each other. A strip of an odd number of words has one in its
// last line.
struct LineWords {
  std::uint32_t *first, *second;  // second: or null

  __device__ __forceinline__ LineWords(const PeerStrip& strip, std::uint32_t line) {
    const std::uint32_t word = 2 * line, row = word / strip.row_words;
    const std::uint32_t column = word - row * strip.row_words;
    std::uint32_t* start = strip.data + static_cast<std::size_t>(row) * strip.stride_words;
    first = start + column;
    second = column + 1 < strip.row_words ? first + 1 : start + strip.stride_words;
    if (word + 1 >= strip.n_words) second = nullptr;
  }
};

// Parameters of a launch are copied each time, so most launches have few strips.
template <int kStrips>
struct Parameters {
  PeerExchangeBase base;
  PeerStrip strips[kStrips];
};

// Calls use(i, line) for this thread's lines of all strips, which are counted through: strips
// first, first + step, ... of n. No strip waits for the one before.
template <typename Use>
__device__ __forceinline__ void for_each_line(const PeerStrip* strips, int first, int n, int step,
                                              const Use& use) {
  const std::uint32_t n_threads = gridDim.x * kThreads;
#pragma unroll 1
  for (std::uint32_t at = blockIdx.x * kThreads + threadIdx.x;; at += n_threads) {
    std::uint32_t line = at;
    int i = 0;
#pragma unroll 1
    for (; i < n; ++i) {
      const std::uint32_t n_lines = (strips[first + i * step].n_words + 1) / 2;
      if (line < n_lines) break;
      line -= n_lines;
    }
    if (i == n) return;
    use(strips[first + i * step], line);
  }
}

template <int kStrips>
__global__ void __launch_bounds__(kThreads)
    exchange_kernel(const __grid_constant__ Parameters<kStrips> parameters) {
  const PeerExchangeBase& p = parameters.base;
  const PeerStrip* strips = parameters.strips;
  let_next_kernel_start();
  await_earlier_kernels();

  for_each_line(strips, 0, p.n_sends, 1, [&](const PeerStrip& strip, std::uint32_t line) {
    uint4* lines = static_cast<uint4*>(p.there[strip.peer]) + strip.first_line;
    const LineWords words(strip, line);
    store_line(lines + line, *words.first, words.second ? *words.second : 0, p.flag);
  });
  const bool greets = blockIdx.x == 0 && static_cast<int>(threadIdx.x) < p.n_peers;
  if (greets) store_line(static_cast<uint4*>(p.there[threadIdx.x]), 0, 0, p.flag);

  const int first_copy = p.n_sends + p.n_receives;  // pairs: from, to
  for_each_line(strips, first_copy, p.n_copies, 2, [&](const PeerStrip& from, std::uint32_t line) {
    const LineWords words(from, line), there((&from)[1], line);
    *there.first = *words.first;
    if (words.second) *there.second = *words.second;
  });

  if (greets) await_line(p, static_cast<const uint4*>(p.here[threadIdx.x]));
  for_each_line(
      strips, p.n_sends, p.n_receives, 1, [&](const PeerStrip& strip, std::uint32_t line) {
        const auto* lines = static_cast<const uint4*>(p.here[strip.peer]) + strip.first_line;
        const LineWords words(strip, line);
        const uint4 value = await_line(p, lines + line);
        *words.first = value.x;
        if (words.second) *words.second = value.z;
      });
}

void check_exchange(const PeerExchange& p) {
  const int n_strips = p.n_sends + p.n_receives + 2 * p.n_copies;
  bool fits = p.n_peers >= 0 && p.n_peers <= kMostPeers && p.n_sends >= 0 && p.n_receives >= 0 &&
              p.n_copies >= 0 && n_strips <= kMostPeerStrips;
  for (int i = 0; fits && i < n_strips; ++i) fits = p.strips[i].row_words > 0;
  if (!fits) {
    throw BadShape("peer exchange: " + std::to_string(n_strips) + " strips among " +
                   std::to_string(p.n_peers) + " peers: at most " +
                   std::to_string(kMostPeerStrips) + " and " + std::to_string(kMostPeers));
  }
}

}  // namespace

void exchange_with_peers(const PeerExchange& p, Stream stream) {
  check_exchange(p);
  const auto n_lines = [&](int first, int n) {
    std::uint32_t sum = 1;
    for (int i = 0; i < n; ++i) sum += n_lines_of(p.strips[first + i].n_words);
    return sum;
  };
  const std::uint32_t most_lines =
      std::max({n_lines(0, p.n_sends), n_lines(p.n_sends, p.n_receives),
                n_lines(p.n_sends + p.n_receives, 2 * p.n_copies) / 2});
  const auto n_blocks =
      std::min<std::uint32_t>(most_waiting_blocks(), (most_lines + kThreads - 1) / kThreads);
  const auto launch = [&]<int kStrips>(std::integral_constant<int, kStrips>) {
    Parameters<kStrips> parameters;
    parameters.base = p;
    std::copy_n(p.strips, p.n_sends + p.n_receives + 2 * p.n_copies, parameters.strips);
    launch_overlapping("peer exchange", exchange_kernel<kStrips>, {n_blocks, 1, kThreads, 0},
                       stream, parameters);
  };
  constexpr int kFew = 16;
  if (p.n_sends + p.n_receives + 2 * p.n_copies <= kFew) {
    launch(std::integral_constant<int, kFew>());
  } else {
    launch(std::integral_constant<int, kMostPeerStrips>());
  }
}

}  // namespace starattn::kernels
