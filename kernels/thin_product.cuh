// SPDX-License-Identifier: Apache-2.0
// The inner part of all thin products, bf16 or FP8: some rows of x with some rows of a matrix,
// bound by reading the matrix once. n_in is shared out in runs of kRun columns over the eight warps
// of a block, which multiply with mma.sync, the matrix as the left operand (16 rows) and x as the
// right one (8 rows of x at a time); then their sums are added in order. Both operands come through
// a ring of steps in shared memory. FP8 is widened in registers; what a run sums to is multiplied
// by its scale in fp32. Blocks go from tile to tile of the matrix, and the ring with them: the next
// tile is on its way while one is finished.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>

#include "ampere.cuh"
#include "f8.cuh"
#include "launch.cuh"
#include "thin_linear.h"
#include "thin_scales.cuh"

namespace starattn::kernels {

constexpr int kWarps = kThinShares;
constexpr int kThreads = 32 * kWarps;
constexpr int kRun = kThinRun;  // that a warp takes at a time; one block of scales has them all

// How a block goes about it. kTiles: tiles of 16 matrix rows; kColumns: tiles of 8 rows of x;
// gated: the first half of the matrix rows is the first matrix's, the second half the same of the
// second.
template <bool kIsF8_, int kTiles_, int kColumns_, int kStages_, bool kGated_>
struct ThinTile {
  static constexpr bool kIsF8 = kIsF8_, kGated = kGated_;
  static constexpr int kTiles = kTiles_, kColumns = kColumns_, kStages = kStages_;
  static constexpr int kSums = 16 * kTiles;                // matrix rows
  static constexpr int kOut = kGated ? kSums / 2 : kSums;  // columns of y
  static constexpr int kRows = 8 * kColumns;
  // Lanes own row lane / 4 of every 8, and kLaneColumns of a step's columns.
  static constexpr int kLaneColumns = kIsF8 ? 16 : 8;
  static constexpr int kStep = 4 * kLaneColumns;
  static constexpr int kStepsPerRun = kRun / kStep;
  // Chunks of a step, 16 bytes a lane: of the matrix, then of x.
  static constexpr int kWChunks = 2 * kTiles;
  static constexpr int kMatrices = kGated ? 2 : 1;
  static constexpr int kMatrixChunks = kWChunks / kMatrices;
  static constexpr int kXPerTile = kIsF8 ? 2 : 1;
  static constexpr int kStepChunks = kWChunks + kXPerTile * kColumns;
  using Sums = float[kWarps][kRows][kSums + 1];
  static constexpr int kRingChunks = kWarps * kStages * kStepChunks * 32;  // then come the sums
  static constexpr int kSharedBytes = kRingChunks * 16 + static_cast<int>(sizeof(Sums));
  // Of a multiprocessor, which has 227 KB and 1 KB a block for itself.
  static constexpr int kBlocks = std::min(2, (227 << 10) / (kSharedBytes + 1024));
};

// What a lane reads of a tile, from its first column on.
template <typename Tile>
struct ThinMatrix {
  static constexpr int kMatrices = Tile::kMatrices;
  const char* w[kMatrices];  // the first of its rows, which are 8 apart
  int n_w;                   // of them, in each matrix

  // Rows out, out + 8, ... of a matrix.
  __device__ __forceinline__ void set(int m, const void* matrix, std::int64_t out,
                                      std::int64_t n_out, std::int64_t n_in) {
    w[m] = static_cast<const char*>(matrix) +
           (out * n_in + threadIdx.x % 4 * Tile::kLaneColumns) * (Tile::kIsF8 ? 1 : 2);
    n_w = static_cast<int>((n_out - out + 7) / 8);
  }
};

// Of the rows that a lane reads of FP8 matrices.
template <typename Tile>
struct ThinScales {
  RunScales matrices[Tile::kMatrices];
  int first[Tile::kWChunks];

  // Row `out` of a matrix, and those 8, 16, ... behind it.
  __device__ __forceinline__ void set(int m, const ThinOutput& of, std::int64_t out,
                                      std::int64_t n_in) {
    matrices[m] = RunScales(of, n_in);
#pragma unroll
    for (int i = 0; i < Tile::kMatrixChunks; ++i)
      first[m * Tile::kMatrixChunks + i] =
          out + 8 * i < of.n_out ? matrices[m].first_of(of.first_row + out + 8 * i) : 0;
  }
  __device__ __forceinline__ float of(int i, int run) const {
    return matrices[i / Tile::kMatrixChunks].of(first[i], run);
  }
};

// Rows of x that a lane reads: the first, and n_rows - 1 more that are 8 apart.
struct ThinRows {
  const char* x;
  int n_rows;

  __device__ __forceinline__ ThinRows(const void* rows, std::int64_t row, int n_rows,
                                      std::int64_t n_in)
      : x(static_cast<const char*>(rows) + (row * n_in + threadIdx.x % 4 * 8) * 2),
        n_rows(n_rows) {}
};

// Where this lane puts its piece of 8 rows of 32 bf16 columns, of which each row has four: so that
// ldmatrix finds the pieces of 8 rows in banks of their own.
__device__ __forceinline__ int place_of_lane() {
  const int lane = threadIdx.x % 32;
  return lane / 4 * 4 + (lane % 4 ^ lane / 8);
}

// The same for one of the eight pieces that rows of x have of 64 columns, so that pieces 2 i and
// 2 i + 1 of four rows lie in banks of their own.
__device__ __forceinline__ int x_place_f8(int row, int piece) {
  return piece ^ row % 4 * 2;
}

// c[16, 8] of each tile and 8 rows of x += one step of both, in shared memory: bf16, 16 columns
// after the other, as wgmma takes them (thin_linear_sm90.cu).
template <typename Tile>
__device__ __forceinline__ void multiply_bf16(float (&c)[Tile::kTiles][Tile::kColumns][4],
                                              const uint4* w, const uint4* x) {
  const int lane = threadIdx.x % 32, row = lane % 8, matrix = lane / 8;
  std::uint32_t low[Tile::kTiles][4], high[Tile::kTiles][4];  // of 32 columns
  const auto* of_w = w + matrix % 2 * 32 + row * 4;
#pragma unroll
  for (int t = 0; t < Tile::kTiles; ++t) {
    const auto* tile = of_w + 2 * t * 32;
    ampere::load_matrices(low[t], ampere::shared_address(tile + (matrix / 2 ^ row / 2)));
    ampere::load_matrices(high[t], ampere::shared_address(tile + (matrix / 2 ^ row / 2 ^ 2)));
  }
#pragma unroll
  for (int n = 0; n < Tile::kColumns; ++n) {
    std::uint32_t b[4];
    ampere::load_matrices(b, ampere::shared_address(x + n * 32 + row * 4 + (matrix ^ row / 2)));
#pragma unroll
    for (int t = 0; t < Tile::kTiles; ++t) {
      ampere::multiply_add(c[t][n], low[t], b[0], b[1]);
      ampere::multiply_add(c[t][n], high[t], b[2], b[3]);
    }
  }
}

// The same of FP8, 16 columns after the other as well. Of these a lane has the four from
// 4 * (lane % 4) on, of both operands, and takes the first and third for the first eight of the
// product: the order among 16 does not matter to the bits, so long as both operands agree.
template <typename Tile>
__device__ __forceinline__ void multiply_f8(float (&c)[Tile::kTiles][Tile::kColumns][4],
                                            const uint4* w, const uint4* x) {
  const int lane = threadIdx.x % 32, row = lane % 8, matrix = lane / 8;
  const auto* of_w = w + matrix % 2 * 32 + row * 4;
  const char* of_x = reinterpret_cast<const char*>(x + lane / 4 * 8) + lane % 2 * 8;
#pragma unroll
  for (int i = 0; i < Tile::kStep / 16; i += 2) {
    std::uint32_t four[Tile::kTiles][4];  // of rows and 8 more, then of the next 16 columns
#pragma unroll
    for (int t = 0; t < Tile::kTiles; ++t)
      ampere::load_matrices(four[t],
                            ampere::shared_address(of_w + 2 * t * 32 + (i + matrix / 2 ^ row / 2)));
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      std::uint32_t a[Tile::kTiles][4];
#pragma unroll
      for (int t = 0; t < Tile::kTiles; ++t)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          a[t][k] = even_bytes(four[t][2 * j + k]);
          a[t][2 + k] = odd_bytes(four[t][2 * j + k]);
        }
      const char* const at = of_x + x_place_f8(lane / 4, 2 * (i + j) + lane % 4 / 2) * 16;
#pragma unroll
      for (int n = 0; n < Tile::kColumns; ++n) {
        const uint2 b = *reinterpret_cast<const uint2*>(at + n * 64 * 16);
        const std::uint32_t even = __byte_perm(b.x, b.y, 0x5410);
        const std::uint32_t odd = __byte_perm(b.x, b.y, 0x7632);
#pragma unroll
        for (int t = 0; t < Tile::kTiles; ++t) ampere::multiply_add(c[t][n], a[t], even, odd);
      }
    }
  }
}

// Where a warp's steps lie: in a tile of the matrix, and in the ring.
template <typename Tile>
struct ThinStep {
  int column, stage = 0;

  __device__ __forceinline__ ThinStep() { start_tile(); }
  __device__ __forceinline__ void start_tile() {
    column = static_cast<int>(threadIdx.x) / 32 * kRun;
  }
  __device__ __forceinline__ void next() {
    column += Tile::kStep;
    if (column % kRun == 0) column += (kWarps - 1) * kRun;
    if (++stage == Tile::kStages) stage = 0;
  }
  // A run of FP8 columns has all of its steps, and zeros beyond the last column.
  __device__ __forceinline__ bool is_beyond(int n_in) const {
    return (Tile::kIsF8 ? column - column % kRun : column) >= n_in;
  }
  __device__ __forceinline__ int chunk() const { return stage * Tile::kStepChunks * 32; }
};

// The product of a row of x and a matrix row: of all warps, in order.
template <typename Tile>
__device__ __forceinline__ float total(const typename Tile::Sums& sums, int row, int matrix_row) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp][row][matrix_row];
  return sum;
}

// Goes through tiles first, first + stride, ... below n_tiles. Job: matrix(tile) and scales(tile)
// say what this lane reads, finish(tile, sums) has total() of each number. await_rows(): called
// when the matrix is on its way; returns the ThinRows.
template <typename Tile, typename Job, typename AwaitRows>
__device__ __forceinline__ void multiply_tiles(const Job& job, const AwaitRows& await_rows,
                                               std::int64_t wide_n_in, int first, int stride,
                                               int n_tiles, uint4* memory) {
  constexpr int kStages = Tile::kStages, kTiles = Tile::kTiles, kColumns = Tile::kColumns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_in = static_cast<int>(wide_n_in);
  auto& sums = *reinterpret_cast<typename Tile::Sums*>(memory + Tile::kRingChunks);
  uint4* const w_ring = memory + warp * kStages * Tile::kStepChunks * 32;
  uint4* const x_ring = w_ring + Tile::kWChunks * 32;
  const int place = place_of_lane();

  ThinStep<Tile> ahead;
  const bool has_steps = ahead.column < n_in;
  int ahead_tile = first;
  ThinMatrix<Tile> matrix;
  if (first < n_tiles) matrix = job.matrix(first);
  const auto fetch_w = [&] {
    if (ahead.is_beyond(n_in)) {
      ahead.start_tile();
      ahead_tile += stride;
      if (ahead_tile < n_tiles) matrix = job.matrix(ahead_tile);
    }
    const bool inside =
        has_steps && ahead_tile < n_tiles && ahead.column + lane % 4 * Tile::kLaneColumns < n_in;
#pragma unroll
    for (int i = 0; i < Tile::kWChunks; ++i) {
      const int row = i % Tile::kMatrixChunks;
      const std::int64_t at = row * 8 * wide_n_in + ahead.column;
      ampere::copy_async(ampere::shared_address(w_ring + ahead.chunk() + i * 32 + place),
                         matrix.w[i / Tile::kMatrixChunks] + at * (Tile::kIsF8 ? 1 : 2),
                         inside && row < matrix.n_w);
    }
  };
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i, ahead.next()) fetch_w();
  const ThinRows rows = await_rows();

  // Lanes fetch what lies beside each other, and leave it so: copies are slow where the two halves
  // of 32 bytes part.
  const auto fetch_x = [&](const ThinStep<Tile>& step) {
#pragma unroll
    for (int i = 0; i < Tile::kXPerTile * Tile::kColumns; ++i) {
      const int n = i / Tile::kXPerTile, eight = i % Tile::kXPerTile * 4 + lane % 4;
      const int column = step.column + i % Tile::kXPerTile * 32;
      const int at =
          Tile::kIsF8 ? (n * 8 + lane / 4) * 8 + x_place_f8(lane / 4, eight) : n * 32 + place;
      ampere::copy_async(ampere::shared_address(x_ring + step.chunk() + at),
                         rows.x + (n * 8 * wide_n_in + column) * 2,
                         column + lane % 4 * 8 < n_in && n < rows.n_rows);
    }
    ampere::copy_commit();
  };

  ThinStep<Tile> x_ahead;
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i, x_ahead.next()) {
    if (x_ahead.is_beyond(n_in)) x_ahead.start_tile();
    fetch_x(x_ahead);
  }

  ThinStep<Tile> step;
  for (int tile = first; tile < n_tiles; tile += stride) {
    float c[kTiles][kColumns][4] = {};
    const auto add_step = [&](float(&to)[kTiles][kColumns][4]) {
      ampere::copy_wait<kStages - 2>();
      __syncwarp();
      const uint4 *w = w_ring + step.chunk(), *x = x_ring + step.chunk();
      if constexpr (Tile::kIsF8)
        multiply_f8<Tile>(to, w, x);
      else
        multiply_bf16<Tile>(to, w, x);
      fetch_w();
      fetch_x(ahead);
      ahead.next();
      step.next();
    };
    step.start_tile();
    if constexpr (Tile::kIsF8) {
      const ThinScales<Tile> scales = job.scales(tile);
      while (step.column < n_in) {
        float part[kTiles][kColumns][4] = {};
        float of_run[Tile::kWChunks];  // which come while the run is multiplied
#pragma unroll
        for (int i = 0; i < Tile::kWChunks; ++i) of_run[i] = scales.of(i, step.column / kRun);
#pragma unroll 1
        for (int i = 0; i < Tile::kStepsPerRun; ++i) add_step(part);
#pragma unroll
        for (int t = 0; t < kTiles; ++t)
#pragma unroll
          for (int n = 0; n < kColumns; ++n)
#pragma unroll
            for (int j = 0; j < 4; ++j)
              c[t][n][j] = fmaf(of_run[2 * t + j / 2], part[t][n][j], c[t][n][j]);
      }
    } else {
      while (step.column < n_in) add_step(c);
    }

    if (tile != first) __syncthreads();  // nobody needs the sums of the tile before any more
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int n = 0; n < kColumns; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums[warp][8 * n + lane % 4 * 2 + i % 2][16 * t + lane / 4 + i / 2 * 8] = c[t][n][i];
    __syncthreads();
    job.finish(tile, sums);
  }
  ampere::copy_wait<0>();
}

}  // namespace starattn::kernels
