// SPDX-License-Identifier: Apache-2.0
// Thin products with FP8 matrices: half the bytes to read. As in thin_linear.cu a block owns 16
// rows of a matrix, its eight warps share out n_in in runs of kRun columns and multiply with
// mma.sync; here lanes fetch 16 values at a time straight into registers and widen them there. What
// a run sums to is multiplied by the scales of its blocks in fp32.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "ampere.cuh"
#include "f8.cuh"
#include "launch.cuh"
#include "thin_linear_f8.h"
#include "thin_output.cuh"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kOut = 16;   // matrix rows of a block
constexpr int kRun = 128;  // columns that a warp takes at a time; one block of scales has them all
constexpr int kStep = 64;  // of them: 16 columns a lane
constexpr int kSteps = kRun / kStep;

// kColumns: tiles of 8 rows of x.
template <int kColumns, bool kGated>
__global__ void __launch_bounds__(kThreads) thin_f8_kernel(const __grid_constant__ ThinLinear p) {
  constexpr int kMatrices = kGated ? 2 : 1;
  __shared__ float sums[kWarps][kMatrices][8 * kColumns][kOut + 1];
  std::int64_t first_out = static_cast<std::int64_t>(blockIdx.x) * kOut;
  int which = 0;
  for (; !kGated && which + 1 < p.n_outputs; ++which) {
    const std::int64_t whole = (p.outputs[which].n_out + kOut - 1) / kOut * kOut;
    if (first_out < whole) break;
    first_out -= whole;
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  // Lanes own row lane / 4 of every 8, and 16 of a step's columns.
  const int first_column = lane % 4 * 16;
  const std::uint8_t* w[kMatrices][2];
  const float* scales[kMatrices][2];
  unsigned block_cols[kMatrices];
  bool is_row[2];
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    const ThinOutput& of = p.outputs[kGated ? m : which];
    const std::int64_t n_blocks = (p.n_in + of.block_cols - 1) / of.block_cols;
    block_cols[m] = static_cast<unsigned>(of.block_cols < p.n_in ? of.block_cols : p.n_in);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      is_row[half] = first_out + 8 * half + lane / 4 < of.n_out;
      const std::int64_t out = is_row[half] ? first_out + 8 * half + lane / 4 : 0;
      w[m][half] = static_cast<const std::uint8_t*>(of.w) + out * p.n_in + first_column;
      scales[m][half] = of.scales + (of.first_row + out) / of.block_rows * n_blocks;
    }
  }
  const auto* x = static_cast<const __nv_bfloat16*>(p.x) + lane / 4 * p.n_in + first_column;

  // A run of the matrix and the scales of its rows. With few rows of x one run is on its way while
  // the one before is multiplied; the first is, in any case, before earlier kernels have finished
  // x.
  constexpr bool kIsAhead = kColumns == 1;
  uint4 next[kSteps][kMatrices][2];
  float next_scales[kMatrices][2];
  const auto fetch = [&](std::int64_t run) {
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
      const unsigned block = static_cast<unsigned>(run) / block_cols[m];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        next_scales[m][half] = run < p.n_in ? __ldg(scales[m][half] + block) : 0.f;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          const std::int64_t column = run + step * kStep;
          const bool inside = column + first_column < p.n_in && is_row[half];
          next[step][m][half] =
              inside ? __ldg(reinterpret_cast<const uint4*>(w[m][half] + column)) : uint4{};
        }
      }
    }
  };
  let_next_kernel_start();
  fetch(warp * kRun);
  await_earlier_kernels();
  float c[kMatrices][kColumns][4] = {};
  for (std::int64_t run = warp * kRun; run < p.n_in; run += kWarps * kRun) {
    uint4 packed[kSteps][kMatrices][2];
    float of_row[kMatrices][2];
    float part[kMatrices][kColumns][4] = {};
#pragma unroll
    for (int m = 0; m < kMatrices; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        of_row[m][half] = next_scales[m][half];
#pragma unroll
        for (int step = 0; step < kSteps; ++step) packed[step][m][half] = next[step][m][half];
      }
    if (kIsAhead) fetch(run + kWarps * kRun);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint4 b[kColumns][2];
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        const bool is_there =
            run + step * kStep + first_column < p.n_in && 8 * n + lane / 4 < p.n_rows;
        const auto* from = reinterpret_cast<const uint4*>(x + 8 * n * p.n_in + run + step * kStep);
        b[n][0] = is_there ? from[0] : uint4{};
        b[n][1] = is_there ? from[1] : uint4{};
      }
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        std::uint32_t low[8], high[8];
        widen(packed[step][m][0], low);
        widen(packed[step][m][1], high);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const std::uint32_t a[] = {low[2 * i], high[2 * i], low[2 * i + 1], high[2 * i + 1]};
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            const uint4& four = b[n][i / 2];
            ampere::multiply_add(part[m][n], a, i % 2 ? four.z : four.x, i % 2 ? four.w : four.y);
          }
        }
      }
    }
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n)
#pragma unroll
        for (int j = 0; j < 4; ++j) c[m][n][j] = fmaf(of_row[m][j / 2], part[m][n][j], c[m][n][j]);
    }
    if (!kIsAhead) fetch(run + kWarps * kRun);
  }

#pragma unroll
  for (int m = 0; m < kMatrices; ++m)
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        sums[warp][m][8 * n + lane % 4 * 2 + j % 2][lane / 4 + j / 2 * 8] = c[m][n][j];
  __syncthreads();
  const ThinOutput& to = p.outputs[which];
  for (int i = threadIdx.x; i < 8 * kColumns * kOut; i += kThreads) {
    const int row = i / kOut;
    const std::int64_t out = first_out + i % kOut;
    if (row >= p.n_rows || out >= to.n_out) continue;
    float total[kMatrices] = {};
#pragma unroll
    for (int k = 0; k < kWarps; ++k)
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) total[m] += sums[k][m][row][i % kOut];
    write_output<kGated>(p, to, row, out, total[0], total[kMatrices - 1]);
  }
}

template <int kColumns, bool kGated>
void launch(const ThinLinear& p, Stream stream) {
  std::int64_t n_blocks = 0;
  for (int i = 0; i < (kGated ? 1 : p.n_outputs); ++i)
    n_blocks += (p.outputs[i].n_out + kOut - 1) / kOut;
  launch_overlapping("thin FP8 product", thin_f8_kernel<kColumns, kGated>,
                     {static_cast<unsigned>(n_blocks), 1, kThreads}, stream, p);
}

template <bool kGated>
void launch_fitting(const ThinLinear& p, Stream stream) {
  if (p.n_rows <= 8) return launch<1, kGated>(p, stream);
  if (p.n_rows <= 16) return launch<2, kGated>(p, stream);
  launch<4, kGated>(p, stream);
}

}  // namespace

void thin_linear_f8(const ThinLinear& p, Stream stream) {
  for (int i = 0; i < p.n_outputs; ++i) {
    const ThinOutput& of = p.outputs[i];
    const bool fits = of.block_rows > 0 && of.block_cols > 0 &&
                      (of.block_cols % kRun == 0 || of.block_cols >= p.n_in);
    if (!of.scales || p.n_in % 16 != 0 || p.n_rows > kMostThinRows || !fits)
      throw BadShape("thin FP8 product: the width must be a multiple of 16, that of a block of " +
                     std::to_string(kRun) + "; got " + std::to_string(p.n_in) + " and " +
                     std::to_string(of.block_cols));
  }
  if (p.kind == ThinKind::gated)
    launch_fitting<true>(p, stream);
  else
    launch_fitting<false>(p, stream);
}

}  // namespace starattn::kernels
