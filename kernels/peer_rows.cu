// SPDX-License-Identifier: Apache-2.0
// An exchange of rows whose columns are shared out. Whoever made them may have sent them already.
// Where they are wanted behind a norm, who receives a row's columns sums their squares at once.
#include <cuda_runtime.h>

#include <algorithm>
#include <climits>
#include <string>

#include "launch.cuh"
#include "norm.cuh"
#include "peer_exchange.h"
#include "peer_lines.cuh"
#include "peer_rows.cuh"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ void send(const PeerRows& p, std::int64_t row) {
  const auto* mine = static_cast<const uint4*>(p.mine) + row * p.own.count;
  uint4* own = static_cast<uint4*>(p.all) + row * p.n_vectors + p.own.first;
  const int n_peers = p.is_sent ? 0 : p.n_peers;
#pragma unroll 1
  for (int i = threadIdx.x; i < p.own.count; i += kThreads) {
    const uint4 v = mine[i];
#pragma unroll 1
    for (int peer = 0; peer < n_peers; ++peer) {
      uint4* line = static_cast<uint4*>(p.there[peer]) + line_of(row, p.own.count, i);
      store_line(line, v.x, v.y, p.flag);
      store_line(line + 1, v.z, v.w, p.flag);
    }
    own[i] = v;
  }
}

__global__ void __launch_bounds__(kThreads) exchange_kernel(const __grid_constant__ PeerRows p) {
  let_next_kernel_start();
  await_earlier_kernels();
  const int stride = static_cast<int>(gridDim.y) * kThreads;
  const int first = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (std::int64_t row = blockIdx.x; row < p.n_rows; row += gridDim.x)
    if (blockIdx.y == 0) send(p, row);
  if (blockIdx.y == 0) greet(p);
#pragma unroll 1
  for (std::int64_t row = blockIdx.x; row < p.n_rows; row += gridDim.x)
#pragma unroll 1
    for (int i = first; i < p.n_vectors; i += stride) receive(p, row, i);
}

// The weights and the row stay in shared memory, and loops are not unrolled: the code is short,
// since every layer has to fetch it again.
__global__ void __launch_bounds__(kThreads)
    exchange_normed_kernel(const __grid_constant__ PeerRows p) {
  __shared__ float sums[kThreads / 32];
  extern __shared__ uint4 scales[];  // [n_vectors], then a row
  uint4* held = scales + p.n_vectors;
#pragma unroll 1
  for (int i = threadIdx.x; i < p.n_vectors; i += kThreads)
    scales[i] = static_cast<const uint4*>(p.weight)[i];
  let_next_kernel_start();
  await_earlier_kernels();
#pragma unroll 1
  for (std::int64_t row = blockIdx.x; row < p.n_rows; row += gridDim.x) send(p, row);
  greet(p);
#pragma unroll 1
  for (std::int64_t row = blockIdx.x; row < p.n_rows; row += gridDim.x) {
    float squares = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < p.n_vectors; i += kThreads) {
      held[i] = receive(p, row, i);
      add_squares(squares, held[i]);
    }
    __syncthreads();  // nobody reads the sums of the row before any more
    const float mean = block_sum(squares, sums) / static_cast<float>(p.n_vectors * 8);
    const float factor = factor_of(mean, p.eps);
    uint4* normed = static_cast<uint4*>(p.normed) + row * p.n_vectors;
#pragma unroll 1
    for (int i = threadIdx.x; i < p.n_vectors; i += kThreads)
      normed[i] = scaled(held[i], factor, scales[i]);
  }
}

// Whether the columns of all are those of a row, each once; least: that each has.
bool are_a_row(const PeerColumns* columns, int n, int n_vectors, int least) {
  PeerColumns all[kMostPeers + 1];
  std::copy_n(columns, n, all);
  std::sort(all, all + n, [](const PeerColumns& a, const PeerColumns& b) {
    return a.first != b.first ? a.first < b.first : a.count < b.count;
  });
  int end = 0;
  for (int i = 0; i < n; ++i) {
    if (all[i].first != end || all[i].count < least) return false;
    end = all[i].end();
  }
  return end == n_vectors;
}

}  // namespace

void check_columns(const PeerRows& p) {
  PeerColumns all[kMostPeers + 1];
  const int n = std::clamp(p.n_peers, 0, kMostPeers);
  std::copy_n(p.of_peers, n, all);
  all[n] = p.own;
  if (p.n_peers == n && p.n_vectors > (p.weight ? 32 : 0) &&
      p.n_vectors <= (p.weight ? kMostNormedVectors : INT_MAX) &&
      are_a_row(all, n + 1, p.n_vectors, 0))
    return;
  throw BadShape("exchange of rows: " + std::to_string(p.n_peers) +
                 " peers whose columns are not those of a row of " +
                 std::to_string(8 * p.n_vectors) + ", or behind a norm not 264 to " +
                 std::to_string(8 * kMostNormedVectors));
}

bool can_await_rows(std::int64_t n_rows, std::int64_t n_vectors, bool behind_norm) {
  return n_rows > 0 && n_rows <= kMostAwaitedRows && n_rows * n_vectors <= kMostAwaited &&
         n_vectors > (behind_norm ? 32 : 0) && (!behind_norm || n_vectors <= kMostAwaitedNormed);
}

void check_awaited(const AwaitedRows& p, std::int64_t n_rows, std::int64_t n_columns) {
  const bool has_source = p.n_ranks == 0 ? p.from != nullptr
                                         : p.n_ranks <= kMostPeers + 1 &&
                                               are_a_row(p.columns, p.n_ranks, p.n_vectors, 1);
  if (has_source && p.n_rows == n_rows && 8 * std::int64_t{p.n_vectors} == n_columns &&
      can_await_rows(n_rows, p.n_vectors, p.weight != nullptr))
    return;
  throw BadShape("awaited rows: " + std::to_string(p.n_rows) + " of " +
                 std::to_string(8 * p.n_vectors) + " columns from " + std::to_string(p.n_ranks) +
                 " devices, wanted as " + std::to_string(n_rows) + " of " +
                 std::to_string(n_columns) + "; in all at most " +
                 std::to_string(8 * kMostAwaited) + ", and some from each device");
}

void exchange_rows(const PeerRows& p, Stream stream) {
  check_columns(p);
  if (p.n_rows == 0) return;
  const unsigned most_blocks = most_waiting_blocks();
  const auto n_blocks = static_cast<unsigned>(std::min<std::int64_t>(most_blocks, p.n_rows));
  if (p.weight) {
    const std::size_t shared_bytes = 2 * static_cast<std::size_t>(p.n_vectors) * sizeof(uint4);
    check_cuda(
        cudaFuncSetAttribute(exchange_normed_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes)),
        "peer exchange and norm: shared memory");
    launch_overlapping("peer exchange and norm", exchange_normed_kernel,
                       {n_blocks, 1, kThreads, shared_bytes}, stream, p);
  } else {
    const auto n_beside = static_cast<unsigned>((p.n_vectors + kThreads - 1) / kThreads);
    launch_overlapping("peer exchange of rows", exchange_kernel,
                       {n_blocks, std::min(n_beside, most_blocks / n_blocks), kThreads, 0}, stream,
                       p);
  }
}

}  // namespace starattn::kernels
