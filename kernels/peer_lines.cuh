// SPDX-License-Identifier: Apache-2.0
// The lines that devices store into each other's memory: two words and two flags. Stored and loaded
// at once, a line is there when both flags are those of its exchange.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_check.h"
#include "peer_exchange.h"

namespace starattn::kernels {

// Blocks of a kernel that wait for other devices: so few that all run at once, whatever else is
// there, since those that wait must not keep others of them from sending.
inline unsigned most_waiting_blocks() {
  return 2 * static_cast<unsigned>(n_multiprocessors());
}

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

// Stores a number of a row: lanes 4 i to 4 i + 3 have columns that follow each other, and are all
// inside or none. The whole warp calls it.
__device__ __forceinline__ void send_number(const PeerSend& to, std::int64_t row,
                                            std::int64_t column, __nv_bfloat16 number,
                                            bool is_inside) {
  if (to.n_peers == 0) return;
  const std::uint32_t bits = __bfloat16_as_ushort(number);
  const std::uint32_t pair = bits | __shfl_down_sync(0xffffffff, bits, 1) << 16;
  const std::uint32_t second = __shfl_down_sync(0xffffffff, pair, 2);
  if (!is_inside || threadIdx.x % 4 != 0) return;
  const std::int64_t line = 1 + ((to.first_row + row) * to.n_columns + column) / 4;
#pragma unroll 1
  for (int peer = 0; peer < to.n_peers; ++peer)
    store_line(static_cast<uint4*>(to.there[peer]) + line, pair, second, to.flag);
}

// Eight numbers of a row, of which the first is number `column`.
__device__ __forceinline__ void send_vector(const PeerSend& to, std::int64_t row,
                                            std::int64_t column, const uint4& vector) {
  const std::int64_t line = 1 + ((to.first_row + row) * to.n_columns + column) / 4;
#pragma unroll 1
  for (int peer = 0; peer < to.n_peers; ++peer) {
    auto* lines = static_cast<uint4*>(to.there[peer]) + line;
    store_line(lines, vector.x, vector.y, to.flag);
    store_line(lines + 1, vector.z, vector.w, to.flag);
  }
}

// Vector i of a message's row of n_vectors is two lines, behind the greeting.
__device__ __forceinline__ std::int64_t line_of(std::int64_t row, int n_vectors, int i) {
  return 1 + 2 * (row * n_vectors + i);
}

template <int kHeadDim>
constexpr std::int64_t kValueRowLines = lines_of_value_row(kHeadDim);

// Where value row `row`, counted through [n_rows, heads], of a part goes.
template <int kHeadDim>
__device__ __forceinline__ uint4* line_of(const PartsSend& to, int part, std::int64_t row,
                                          std::int64_t n_value_rows) {
  const int n_heads = to.first_head[to.n_ranks], head = static_cast<int>(row % n_heads);
  int rank = 0;
#pragma unroll 1
  while (head >= to.first_head[rank + 1]) ++rank;
  const int first = to.first_head[rank], n_there = to.first_head[rank + 1] - first;
  const std::int64_t row_there =
      (part * (n_value_rows / n_heads) + row / n_heads) * n_there + head - first;
  return static_cast<uint4*>(to.there[rank]) + 1 + row_there * kValueRowLines<kHeadDim>;
}

// Calls look() until it finds what it looks for, or a wait has run into its limit: then what it
// brought is rubbish.
template <typename Look>
__device__ __forceinline__ void await(const PeerWait& p, const Look& look) {
  constexpr int kLooks = 1024;  // before the clock is looked at
  std::uint64_t start = 0;
  for (;;) {
#pragma unroll 1
    for (int i = 0; i < kLooks; ++i)
      if (look()) return;
    const std::uint64_t now = now_ns();
    if (start == 0) start = now;
    auto* gave_up = static_cast<volatile std::uint32_t*>(p.gave_up);
    if (now - start > p.limit_ns) *gave_up = 1;
    if (*gave_up != 0) return;
  }
}

__device__ __forceinline__ uint4 await_line(const PeerWait& p, const uint4* line) {
  uint4 value;
  await(p, [&] {
    value = load_line(line);
    return value.y == p.flag && value.w == p.flag;
  });
  return value;
}

}  // namespace starattn::kernels
