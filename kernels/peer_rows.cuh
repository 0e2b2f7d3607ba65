// SPDX-License-Identifier: Apache-2.0
// The receiving end of an exchange of rows, for the kernels that take part in it.
#pragma once

#include <cuda_runtime.h>

#include "peer_lines.cuh"

namespace starattn::kernels {

__device__ __forceinline__ void greet(const PeerRows& p) {
  if (blockIdx.x > 0 || static_cast<int>(threadIdx.x) >= p.n_peers) return;
  store_line(static_cast<uint4*>(p.there[threadIdx.x]), 0, 0, p.flag);
  await_line(p, static_cast<const uint4*>(p.here[threadIdx.x]));
}

// Vector i of the row, as soon as it is there.
__device__ __forceinline__ uint4 receive(const PeerRows& p, std::int64_t row, int i) {
  const int of_own = i - p.own.first;
  if (of_own >= 0 && of_own < p.own.count)
    return static_cast<const uint4*>(p.mine)[row * p.own.count + of_own];
  int peer = 0;
#pragma unroll 1
  while (i < p.of_peers[peer].first || i >= p.of_peers[peer].first + p.of_peers[peer].count) ++peer;
  const uint4* line = static_cast<const uint4*>(p.here[peer]) +
                      line_of(row, p.of_peers[peer].count, i - p.of_peers[peer].first);
  uint4 a, b;
  await(p, [&] {
    a = load_line(line);
    b = load_line(line + 1);
    return a.y == p.flag && a.w == p.flag && b.y == p.flag && b.w == p.flag;
  });
  const uint4 v{a.x, a.z, b.x, b.z};
  static_cast<uint4*>(p.all)[row * p.n_vectors + i] = v;
  return v;
}

// What the other devices have of all rows, by all threads of a grid of one dimension.
__device__ __forceinline__ void receive_others(const PeerRows& p) {
  greet(p);
  const int n_others = p.n_vectors - p.own.count;
  const std::int64_t n = p.n_rows * n_others;
#pragma unroll 1
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < n;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    const int other = static_cast<int>(i % n_others);
    receive(p, i / n_others, other < p.own.first ? other : other + p.own.count);
  }
}

}  // namespace starattn::kernels
