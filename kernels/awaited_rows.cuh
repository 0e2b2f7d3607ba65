// SPDX-License-Identifier: Apache-2.0
// Rows that a kernel makes ready by itself (AwaitedRows), each block all of them.
#pragma once

#include <cuda_runtime.h>

#include "launch.cuh"
#include "norm.cuh"
#include "peer_lines.cuh"

namespace starattn::kernels {

constexpr int kAwaitThreads = 256;  // of a block, as rms_norm() has them

// Vectors first, first + kAwaitThreads, ... of a row, as soon as all are there. Their loads are
// on their way together, and the code is short, since every layer has to fetch it again.
struct AwaitedVectors {
  static constexpr int kAtOnce = 4;
  uint4 v[kAtOnce];

  __device__ __forceinline__ void load(const AwaitedRows& p, std::int64_t row, int first) {
    const uint4* from = static_cast<const uint4*>(p.from) + row * p.n_vectors;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j)
      if (first + j * kAwaitThreads < p.n_vectors) v[j] = from[first + j * kAwaitThreads];
  }
  __device__ __forceinline__ void receive(const AwaitedRows& p, std::int64_t row, int first) {
    const uint4* lines[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = first + j * kAwaitThreads;
      int rank = 0;
#pragma unroll 1
      while (rank + 1 < p.n_ranks && i >= p.columns[rank + 1].first) ++rank;
      const PeerColumns of = p.columns[rank];
      lines[j] = static_cast<const uint4*>(p.here[rank]) + line_of(row, of.count, i - of.first);
    }
    await(p, [&] {
      bool are_there = true;
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (first + j * kAwaitThreads >= p.n_vectors) continue;
        const uint4 a = load_line(lines[j]), b = load_line(lines[j] + 1);
        v[j] = {a.x, a.z, b.x, b.z};
        are_there &= a.y == p.flag && a.w == p.flag && b.y == p.flag && b.w == p.flag;
      }
      return are_there;
    });
  }
};

// Where this block's copy of the rows lies, once they are ready. All of its threads call it; sums:
// of each warp.
__device__ __forceinline__ const void* ready_rows(const AwaitedRows& p, float* sums) {
  constexpr int kAtOnce = AwaitedVectors::kAtOnce;
  const int copy = static_cast<int>(blockIdx.x) % (kAwaitedCopies + 1);
  uint4* all = static_cast<uint4*>(copy == 0 ? p.rows : p.copies);
  if (copy > 0) all += (copy - 1) * p.n_rows * p.n_vectors;
  uint4 scales[kAtOnce] = {};  // on their way before the rows are there
  const auto* weight = static_cast<const uint4*>(p.weight);
#pragma unroll
  for (int j = 0; j < kAtOnce; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kAwaitThreads;
    if (weight && i < p.n_vectors) scales[j] = weight[i];
  }
  if (p.from) await_earlier_kernels();
#pragma unroll 1
  for (std::int64_t row = 0; row < p.n_rows; ++row) {
#pragma unroll 1
    for (int begin = 0; begin < p.n_vectors; begin += kAtOnce * kAwaitThreads) {
      const int first = begin + static_cast<int>(threadIdx.x);
      AwaitedVectors vectors;
      p.from ? vectors.load(p, row, first) : vectors.receive(p, row, first);
      float factor = 0;
      if (weight) {  // then this is the row's only turn
        float squares = 0;
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j)
          if (first + j * kAwaitThreads < p.n_vectors) add_squares(squares, vectors.v[j]);
        if (row > 0) __syncthreads();  // nobody reads the sums of the row before any more
        factor = factor_of(block_sum(squares, sums) / static_cast<float>(p.n_vectors * 8), p.eps);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int i = first + j * kAwaitThreads;
        if (i < p.n_vectors)
          all[row * p.n_vectors + i] =
              weight ? scaled(vectors.v[j], factor, scales[j]) : vectors.v[j];
      }
    }
  }
  __syncthreads();
  return all;
}

}  // namespace starattn::kernels
