// SPDX-License-Identifier: Apache-2.0
// A block owns some rows of the matrix; its eight warps share out n_in in runs of kRun columns and
// multiply with mma.sync, the matrix as the left operand (16 rows) and x as the right one (8 rows
// of x at a time). Both come through a ring of steps in shared memory, in which each lane fetches
// exactly the 16 bytes that it will need: the product's columns may be numbered in any order, so
// long as both operands agree. The matrix is on its way before earlier kernels have finished x.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "ampere.cuh"
#include "launch.cuh"
#include "thin_linear.h"
#include "thin_linear_f8.h"
#include "thin_output.cuh"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRun = 128;  // columns that a warp takes at a time
constexpr int kStep = 32;  // of them: columns of one product; 16 bytes a lane and 8 rows

// How a block goes about it. kTiles: tiles of 16 matrix rows; kColumns: tiles of 8 rows of x;
// gated: the first half of the matrix rows is the first matrix's, the second half the same of the
// second.
template <int kTiles_, int kColumns_, int kStages_, bool kGated_>
struct ThinTile {
  static constexpr int kTiles = kTiles_, kColumns = kColumns_, kStages = kStages_;
  static constexpr bool kGated = kGated_;
  static constexpr int kSums = 16 * kTiles;
  static constexpr int kOut = kGated ? kSums / 2 : kSums;  // columns of y
  static constexpr int kRows = 8 * kColumns;
  static constexpr int kChunks = 2 * kTiles + kColumns;  // 16 bytes a lane, of one step
  using Sums = float[kWarps][kRows][kSums + 1];
  static constexpr int kRingBytes = kStages * kChunks * kThreads * 16;
  static constexpr int kSharedBytes = std::max<int>(kRingBytes, sizeof(Sums));
};

template <typename Tile>
__global__ void __launch_bounds__(kThreads)
    thin_linear_kernel(const __grid_constant__ ThinLinear p) {
  constexpr int kTiles = Tile::kTiles, kColumns = Tile::kColumns, kStages = Tile::kStages;
  constexpr int kOut = Tile::kOut, kRows = Tile::kRows, kChunks = Tile::kChunks;
  extern __shared__ uint4 memory[];
  std::int64_t first_out = static_cast<std::int64_t>(blockIdx.x) * kOut;
  int which = 0;
  for (; !Tile::kGated && which + 1 < p.n_outputs; ++which) {
    const std::int64_t whole = (p.outputs[which].n_out + kOut - 1) / kOut * kOut;
    if (first_out < whole) break;
    first_out -= whole;
  }
  const ThinOutput& to = p.outputs[which];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  // Lanes own row lane / 4 of every 8, and 8 of a step's columns.
  const int first_column = lane % 4 * 8;
  const __nv_bfloat16* w[2 * kTiles];
  bool is_row[2 * kTiles];
#pragma unroll
  for (int t = 0; t < 2 * kTiles; ++t) {
    const bool is_second = 8 * t >= kOut;
    const std::int64_t out = first_out + 8 * t - (is_second ? kOut : 0) + lane / 4;
    const void* matrix = is_second ? p.outputs[1].w : to.w;
    w[t] = static_cast<const __nv_bfloat16*>(matrix) + out * p.n_in + first_column;
    is_row[t] = out < to.n_out;
  }
  const auto* x = static_cast<const __nv_bfloat16*>(p.x) + lane / 4 * p.n_in + first_column;

  // Step i of this warp, in ring[i % kStages]: the matrix's chunks, then x's.
  uint4* ring = memory + warp * kStages * kChunks * 32 + lane;
  constexpr int kStepsPerRun = kRun / kStep;
  const auto n_runs = static_cast<int>((p.n_in + kRun - 1) / kRun);
  const int n_steps = (n_runs - warp + kWarps - 1) / kWarps * kStepsPerRun;
  const auto column_of = [&](int step) {
    return (step / kStepsPerRun * kWarps + warp) * kRun + step % kStepsPerRun * kStep;
  };
  const auto chunk = [&](int step, int i) { return ring + (step % kStages * kChunks + i) * 32; };
  const auto fetch_w = [&](int step) {
    const int column = column_of(step);
    const bool inside = step < n_steps && column + first_column < p.n_in;
#pragma unroll
    for (int t = 0; t < 2 * kTiles; ++t)
      ampere::copy_async(ampere::shared_address(chunk(step, t)), w[t] + column,
                         inside && is_row[t]);
  };
  const auto fetch_x = [&](int step) {
    const int column = column_of(step);
    const bool inside = step < n_steps && column + first_column < p.n_in;
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
      ampere::copy_async(ampere::shared_address(chunk(step, 2 * kTiles + n)),
                         x + 8 * n * p.n_in + column, inside && 8 * n + lane / 4 < p.n_rows);
    ampere::copy_commit();
  };

  let_next_kernel_start();
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) fetch_w(step);
  await_earlier_kernels();
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) fetch_x(step);
  float c[kTiles][kColumns][4] = {};
  for (int step = 0; step < n_steps; ++step) {
    ampere::copy_wait<kStages - 2>();
    uint4 a[2 * kTiles];
#pragma unroll
    for (int t = 0; t < 2 * kTiles; ++t) a[t] = *chunk(step, t);
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const uint4 b = *chunk(step, 2 * kTiles + n);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const uint4 &low = a[2 * t], &high = a[2 * t + 1];
        const std::uint32_t first[] = {low.x, high.x, low.y, high.y};
        const std::uint32_t second[] = {low.z, high.z, low.w, high.w};
        ampere::multiply_add(c[t][n], first, b.x, b.y);
        ampere::multiply_add(c[t][n], second, b.z, b.w);
      }
    }
    fetch_w(step + kStages - 1);
    fetch_x(step + kStages - 1);
  }

  auto& sums = *reinterpret_cast<typename Tile::Sums*>(memory);
  ampere::copy_wait<0>();
  __syncthreads();  // nobody needs the ring any more
#pragma unroll
  for (int t = 0; t < kTiles; ++t)
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sums[warp][8 * n + lane % 4 * 2 + i % 2][16 * t + lane / 4 + i / 2 * 8] = c[t][n][i];
  __syncthreads();

  for (int i = threadIdx.x; i < kRows * kOut; i += kThreads) {
    const int row = i / kOut;
    const std::int64_t out = first_out + i % kOut;
    if (row >= p.n_rows || out >= to.n_out) continue;
    const auto total = [&](int column) {
      float sum = 0;
#pragma unroll
      for (int k = 0; k < kWarps; ++k) sum += sums[k][row][column];
      return sum;
    };
    write_output<Tile::kGated>(p, to, row, out, total(i % kOut),
                               Tile::kGated ? total(kOut + i % kOut) : 0.f);
  }
}

template <typename Tile>
void launch(const ThinLinear& p, Stream stream) {
  constexpr int kOut = Tile::kOut;
  std::int64_t n_blocks = 0;
  for (int i = 0; i < (Tile::kGated ? 1 : p.n_outputs); ++i)
    n_blocks += (p.outputs[i].n_out + kOut - 1) / kOut;
  check_cuda(cudaFuncSetAttribute(thin_linear_kernel<Tile>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             "thin product: shared memory");
  launch_overlapping("thin product", thin_linear_kernel<Tile>,
                     {static_cast<unsigned>(n_blocks), 1, kThreads, Tile::kSharedBytes}, stream, p);
}

// Of a block; 99 KB on small GPUs.
int most_shared_bytes() {
  static const int n_bytes =
      device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, "thin product: shared memory");
  return n_bytes;
}

// Stages as measured on an H100 (docs/performance.md).
template <bool kGated>
void launch_fitting(const ThinLinear& p, Stream stream) {
  if (p.n_rows <= 8) return launch<ThinTile<1, 1, 8, kGated>>(p, stream);
  using Deep = ThinTile<2, 4, 4, kGated>;
  const bool is_deep = most_shared_bytes() >= Deep::kSharedBytes;
  if (p.n_rows <= 16)
    return is_deep ? launch<ThinTile<2, 2, 5, kGated>>(p, stream)
                   : launch<ThinTile<2, 2, 4, kGated>>(p, stream);
  return is_deep ? launch<Deep>(p, stream) : launch<ThinTile<2, 4, 3, kGated>>(p, stream);
}

const void* advance(const void* data, std::int64_t n_bytes) {
  return data ? static_cast<const char*>(data) + n_bytes : nullptr;
}

// The same for rows [first, first + n).
ThinLinear rows_of(ThinLinear p, std::int64_t first, std::int64_t n) {
  p.x = advance(p.x, first * p.n_in * 2);
  for (ThinOutput& to : p.outputs) {
    to.plus = advance(to.plus, first * to.n_out * 2);
    to.y = const_cast<void*>(advance(to.y, first * to.n_out * (p.kind == ThinKind::f32 ? 4 : 2)));
  }
  p.n_rows = n;
  return p;
}

void check_shape(const ThinLinear& p) {
  bool fits = p.n_in > 0 && p.n_in % 8 == 0 && p.n_rows >= 0 && p.n_outputs >= 1 &&
              p.n_outputs <= kMaxThinOutputs;
  std::string text = "[" + std::to_string(p.n_rows) + ", " + std::to_string(p.n_in) + "] x";
  for (int i = 0; i < p.n_outputs && i < kMaxThinOutputs; ++i) {
    fits = fits && p.outputs[i].n_out > 0;
    text += " [" + std::to_string(p.outputs[i].n_out) + ", " + std::to_string(p.n_in) + "]^T";
  }
  if (!fits) throw BadShape("thin product: " + text + ": the width must be a multiple of 8");
  const bool is_pair = p.n_outputs == 2 && p.outputs[0].n_out == p.outputs[1].n_out &&
                       !p.outputs[0].plus && !p.outputs[1].plus;
  if (p.kind == ThinKind::gated && !is_pair)
    throw BadShape("gated thin product: " + text +
                   ": two matrices of the same shape are needed, and nothing to add");
}

}  // namespace

void thin_linear(const ThinLinear& p, Stream stream) {
  check_shape(p);
  for (std::int64_t first = 0; first < p.n_rows; first += kMostThinRows) {
    const std::int64_t n = p.n_rows - first < kMostThinRows ? p.n_rows - first : kMostThinRows;
    const ThinLinear part = rows_of(p, first, n);
    if (p.outputs[0].scales)
      thin_linear_f8(part, stream);
    else if (p.kind == ThinKind::gated)
      launch_fitting<true>(part, stream);
    else
      launch_fitting<false>(part, stream);
  }
}

}  // namespace starattn::kernels
