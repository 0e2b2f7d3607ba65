// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <type_traits>

#include "launch.cuh"
#include "peer_exchange.h"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kMostBlocks = 64;  // all of them run at once: those that wait hold up nobody

__device__ __forceinline__ void store_line(uint4* line, std::uint32_t a, std::uint32_t b,
                                           std::uint32_t flag) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %2};" ::"l"(line), "r"(a), "r"(flag),
               "r"(b)
               : "memory");
}

__device__ __forceinline__ uint4 load_line(const uint4* line) {
  uint4 value;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(line)
               : "memory");
  return value;
}

__device__ __forceinline__ std::uint64_t now_ns() {
  std::uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

__device__ __forceinline__ std::uint32_t* word(const PeerStrip& strip, std::uint32_t i) {
  return strip.data + static_cast<std::size_t>(i / strip.row_words) * strip.stride_words +
         i % strip.row_words;
}

// A line of this exchange, or rubbish once a wait has run into its limit.
__device__ uint4 await_line(const PeerExchangeBase& p, const uint4* line) {
  constexpr int kLooks = 1024;  // before the clock is looked at
  std::uint64_t start = 0;
  for (;;) {
    for (int i = 0; i < kLooks; ++i) {
      const uint4 value = load_line(line);
      if (value.y == p.flag && value.w == p.flag) return value;
    }
    const std::uint64_t now = now_ns();
    if (start == 0) start = now;
    auto* gave_up = static_cast<volatile std::uint32_t*>(p.gave_up);
    if (now - start > p.limit_ns) *gave_up = 1;
    if (*gave_up != 0) return load_line(line);
  }
}

// Parameters of a launch are copied each time, so most launches have few strips.
template <int kStrips>
struct Parameters {
  PeerExchangeBase base;
  PeerStrip strips[kStrips];
};

template <int kStrips>
__global__ void __launch_bounds__(kThreads)
    exchange_kernel(const __grid_constant__ Parameters<kStrips> parameters) {
  const PeerExchangeBase& p = parameters.base;
  const std::uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  const std::uint32_t n_threads = gridDim.x * kThreads;
  let_next_kernel_start();
  await_earlier_kernels();

  const PeerStrip* strip = parameters.strips;
  for (int i = 0; i < p.n_sends; ++i, ++strip) {
    uint4* lines = static_cast<uint4*>(p.there[strip->peer]) + strip->first_line;
    const std::uint32_t n_lines = (strip->n_words + 1) / 2;
    for (std::uint32_t line = thread; line < n_lines; line += n_threads) {
      const std::uint32_t first = 2 * line;
      const std::uint32_t a = *word(*strip, first);
      const std::uint32_t b = first + 1 < strip->n_words ? *word(*strip, first + 1) : 0;
      store_line(lines + line, a, b, p.flag);
    }
  }
  if (thread < static_cast<std::uint32_t>(p.n_peers))
    store_line(static_cast<uint4*>(p.there[thread]), 0, 0, p.flag);

  const PeerStrip* receives = strip;
  strip += p.n_receives;
  for (int i = 0; i < p.n_copies; ++i, strip += 2)
    for (std::uint32_t at = thread; at < strip->n_words; at += n_threads)
      *word(strip[1], at) = *word(strip[0], at);

  if (thread < static_cast<std::uint32_t>(p.n_peers))
    await_line(p, static_cast<const uint4*>(p.here[thread]));
  strip = receives;
  for (int i = 0; i < p.n_receives; ++i, ++strip) {
    const uint4* lines = static_cast<const uint4*>(p.here[strip->peer]) + strip->first_line;
    const std::uint32_t n_lines = (strip->n_words + 1) / 2;
    for (std::uint32_t line = thread; line < n_lines; line += n_threads) {
      const uint4 value = await_line(p, lines + line);
      *word(*strip, 2 * line) = value.x;
      if (2 * line + 1 < strip->n_words) *word(*strip, 2 * line + 1) = value.z;
    }
  }
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
  std::uint32_t most_lines = 1;
  for (int i = 0; i < p.n_sends + p.n_receives + 2 * p.n_copies; ++i)
    most_lines = std::max(most_lines, n_lines_of(p.strips[i].n_words));
  const auto n_blocks =
      std::min<std::uint32_t>(kMostBlocks, (most_lines + kThreads - 1) / kThreads);
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
