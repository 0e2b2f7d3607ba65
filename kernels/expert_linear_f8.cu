// SPDX-License-Identifier: Apache-2.0
// FP8 matrices of experts: read as they are by products of few rows, which are bound by it, and
// widened for products of many. The thin product is laid out as that of bf16 in expert_linear.cu;
// what a run of columns sums to is multiplied by its scale.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>

#include "ampere.cuh"
#include "expert_linear_f8.h"
#include "expert_rows.cuh"
#include "f8.cuh"
#include "launch.cuh"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kOut = 16;   // outputs of a block
constexpr int kRun = 128;  // columns that a warp takes at a time; one block of scales has them all
constexpr int kStep = 64;  // of them: 16 columns a lane
constexpr int kSteps = kRun / kStep;

template <bool kGated>
__global__ void __launch_bounds__(kThreads)
    thin_f8_kernel(const __grid_constant__ ExpertLinear p, const std::int32_t* places,
                   const ExpertTile* tiles) {
  constexpr int kMatrices = kGated ? 2 : 1;
  __shared__ float sums[kWarps][kMatrices][kThinTileRows][kOut + 1];
  let_next_kernel_start();
  await_earlier_kernels();
  const ExpertTile tile = tiles[blockIdx.y];
  if (tile.n == 0) return;
  const std::int64_t first_out = static_cast<std::int64_t>(blockIdx.x) * kOut;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  // Lanes own row lane / 4 of every 8, and 16 of a step's columns.
  const int first_column = lane % 4 * 16;
  const std::int64_t n_blocks = (p.n_in + p.block_cols - 1) / p.block_cols;
  const auto block_cols = static_cast<unsigned>(p.block_cols < p.n_in ? p.block_cols : p.n_in);
  const std::uint8_t* w[kMatrices][2];
  const float* scales[kMatrices][2];
  bool has_w[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t row = first_out + 8 * half + lane / 4;
    has_w[half] = row < p.n_out;
    const std::int64_t out = has_w[half] ? row : 0;
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
      const void* matrix = m == 0 ? p.w[tile.expert] : p.w_up[tile.expert];
      const float* of = m == 0 ? p.scales[tile.expert] : p.up_scales[tile.expert];
      w[m][half] = static_cast<const std::uint8_t*>(matrix) + out * p.n_in + first_column;
      scales[m][half] = of + (p.first_row + out) / p.block_rows * n_blocks;
    }
  }
  const bool has_x = lane / 4 < tile.n;
  const std::int64_t x_row = has_x ? row_of(p, places, tile.first + lane / 4) : 0;
  const auto* x = static_cast<const __nv_bfloat16*>(p.x) + x_row * p.n_in + first_column;

  float c[kMatrices][4] = {};
  for (std::int64_t run = warp * kRun; run < p.n_in; run += kWarps * kRun) {
    uint4 packed[kSteps][kMatrices][2], b[kSteps][2];
    float of_row[kMatrices][2];  // scales
    const unsigned block = static_cast<unsigned>(run) / block_cols;
#pragma unroll
    for (int m = 0; m < kMatrices; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) of_row[m][half] = __ldg(scales[m][half] + block);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const std::int64_t column = run + step * kStep;
      const bool inside = column + first_column < p.n_in;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int m = 0; m < kMatrices; ++m)
          packed[step][m][half] = inside && has_w[half]
                                      ? __ldg(reinterpret_cast<const uint4*>(w[m][half] + column))
                                      : uint4{};
        b[step][half] = inside && has_x
                            ? __ldg(reinterpret_cast<const uint4*>(x + column + 8 * half))
                            : uint4{};
      }
    }
    float part[kMatrices][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        std::uint32_t low[8], high[8];
        widen(packed[step][m][0], low);
        widen(packed[step][m][1], high);
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // 4 of the lane's 16 columns
          const std::uint32_t a[] = {low[2 * i], high[2 * i], low[2 * i + 1], high[2 * i + 1]};
          const uint4& eight = b[step][i / 2];
          ampere::multiply_add(part[m], a, i % 2 ? eight.z : eight.x, i % 2 ? eight.w : eight.y);
        }
      }
#pragma unroll
    for (int m = 0; m < kMatrices; ++m)
#pragma unroll
      for (int j = 0; j < 4; ++j) c[m][j] = fmaf(of_row[m][j / 2], part[m][j], c[m][j]);
  }
#pragma unroll
  for (int m = 0; m < kMatrices; ++m)
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[warp][m][lane % 4 * 2 + j % 2][lane / 4 + j / 2 * 8] = c[m][j];
  __syncthreads();

  for (int i = threadIdx.x; i < tile.n * kOut; i += kThreads) {
    const int row = i / kOut, out = i % kOut;
    if (first_out + out >= p.n_out) continue;
    float total[kMatrices] = {};
#pragma unroll
    for (int k = 0; k < kWarps; ++k)
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) total[m] += sums[k][m][row][out];
    const float y = kGated ? gated(total[0], total[kMatrices - 1]) : total[0];
    static_cast<__nv_bfloat16*>(p.y)[(tile.first + row) * p.n_out + first_out + out] =
        __float2bfloat16_rn(y);
  }
}

// 16 columns a thread.
__global__ void __launch_bounds__(kThreads)
    widen_experts_kernel(const __grid_constant__ ExpertMatrices from, uint4* to) {
  const std::int64_t a_row = from.n_cols / 16;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= from.n_rows * a_row) return;
  const std::int64_t row = at / a_row, column = at % a_row * 16;
  const std::int64_t n_blocks = (from.n_cols + from.block_cols - 1) / from.block_cols;
  const float scale =
      from.scales[blockIdx.y][row / from.block_rows * n_blocks + column / from.block_cols];
  std::uint32_t pairs[8];
  widen(__ldg(static_cast<const uint4*>(from.values[blockIdx.y]) + at), pairs);
#pragma unroll
  for (std::uint32_t& pair : pairs) {
    const float2 wide = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
    const __nv_bfloat162 scaled = __floats2bfloat162_rn(wide.x * scale, wide.y * scale);
    pair = reinterpret_cast<const std::uint32_t&>(scaled);
  }
  to += (blockIdx.y * from.n_rows * a_row + at) * 2;
  to[0] = {pairs[0], pairs[1], pairs[2], pairs[3]};
  to[1] = {pairs[4], pairs[5], pairs[6], pairs[7]};
}

void check_blocks(std::int64_t n_in, std::int64_t block_rows, std::int64_t block_cols) {
  const bool fits = n_in > 0 && n_in % 16 == 0 && block_rows > 0 && block_cols > 0 &&
                    (block_cols % kRun == 0 || block_cols >= n_in);
  if (!fits)
    throw BadShape("FP8 experts: the width must be a multiple of 16, that of a block of " +
                   std::to_string(kRun) + "; got " + std::to_string(n_in) + " and " +
                   std::to_string(block_cols));
}

template <bool kGated>
void launch(const ExpertLinear& p, const SortedPlaces& sorted, Stream stream) {
  const auto n_blocks = static_cast<unsigned>((p.n_out + kOut - 1) / kOut);
  const auto n_tiles =
      static_cast<unsigned>(most_expert_tiles(sorted.n_places, p.n_experts, sorted.tile_rows));
  launch_overlapping("product of FP8 experts", thin_f8_kernel<kGated>,
                     {n_blocks, n_tiles, kThreads}, stream, p, sorted.places, sorted.tiles);
}

}  // namespace

void expert_linear_f8(const ExpertLinear& p, const SortedPlaces& sorted, Stream stream) {
  check_blocks(p.n_in, p.block_rows, p.block_cols);
  if (sorted.tile_rows != kThinTileRows || (p.w_up != nullptr) != (p.up_scales != nullptr))
    throw BadShape("product of FP8 experts: few rows a tile are needed, and scales of each matrix");
  if (p.w_up)
    launch<true>(p, sorted, stream);
  else
    launch<false>(p, sorted, stream);
}

void widen_experts(const ExpertMatrices& from, void* to, Stream stream) {
  check_blocks(from.n_cols, from.block_rows, from.block_cols);
  const std::int64_t n_threads = from.n_rows * from.n_cols / 16;
  if (n_threads == 0) return;
  const dim3 grid(static_cast<unsigned>((n_threads + kThreads - 1) / kThreads),
                  static_cast<unsigned>(from.n_experts));
  widen_experts_kernel<<<grid, kThreads, 0, stream>>>(from, static_cast<uint4*>(to));
  check_launch("widening FP8 experts");
}

}  // namespace starattn::kernels
