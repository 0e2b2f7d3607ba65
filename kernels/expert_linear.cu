// SPDX-License-Identifier: Apache-2.0
// The products of experts with their rows, in two shapes of block. Both go over n_in in one order
// for every row. Blocks of tiles that were not needed return at once, so the host never has to know
// how many rows an expert has.
//
// Wide: 128 rows by 128 matrix rows; both operands pass through three stages of shared memory, 64
// columns at a time, and eight warps multiply 64 by 32 of them with mma.sync.
// Thin: 8 rows by 16 matrix rows of each matrix, which lanes fetch straight into the registers that
// mma.sync takes them from; eight warps share out n_in as in thin_linear.cu.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>

#include "ampere.cuh"
#include "cuda_check.h"
#include "expert_linear_f8.h"
#include "expert_rows.cuh"
#include "experts.h"
#include "launch.cuh"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

// --- wide ---------------------------------------------------------------------------------------

constexpr int kColumns = 64;  // of a stage: 128 bytes a row, in 8 chunks of 16
constexpr int kChunks = kColumns / 8;
constexpr int kStages = 3;
constexpr int kMatrixRows = 128;
constexpr int kOperandBytes = kWideTileRows * kColumns * 2;
constexpr int kStageBytes = 2 * kOperandBytes;
constexpr int kWideBytes = kStages * kStageBytes;
static_assert(kMatrixRows == kWideTileRows, "both operands are copied alike");

// Where a chunk of a row lies in an operand's stage: rotated, so that neither copies nor ldmatrix
// meet in a bank.
__device__ __forceinline__ int place_of(int row, int chunk) {
  return row * (kColumns * 2) + (chunk ^ (row % kChunks)) * 16;
}

// Of a pair of matrices 8 rows of one stand beside the same 8 rows of the other, so that a thread
// holds both numbers of an output.
template <bool kGated>
__global__ void __launch_bounds__(kThreads, 2)
    wide_kernel(const __grid_constant__ ExpertLinear p, const std::int32_t* places,
                const ExpertTile* tiles) {
  extern __shared__ __align__(128) std::uint8_t memory[];
  constexpr int kOut = kGated ? kMatrixRows / 2 : kMatrixRows;
  const ExpertTile tile = tiles[blockIdx.x];
  if (tile.n == 0) return;
  const std::int64_t first_out = static_cast<std::int64_t>(blockIdx.y) * kOut;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  // Each thread copies the same chunk of every 32nd row.
  constexpr int kCopies = kWideTileRows / (kThreads / kChunks);
  const int chunk = threadIdx.x % kChunks, copied_row = threadIdx.x / kChunks;
  const __nv_bfloat16* x[kCopies];
  const __nv_bfloat16* w[kCopies];
  bool has_x[kCopies], has_w[kCopies];
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    const int row = copied_row + i * (kThreads / kChunks);
    has_x[i] = row < tile.n;
    const std::int64_t x_row = has_x[i] ? row_of(p, places, tile.first + row) : 0;
    x[i] = static_cast<const __nv_bfloat16*>(p.x) + x_row * p.n_in + chunk * 8;
    const bool is_up = kGated && row / 8 % 2 == 1;
    const std::int64_t out = first_out + (kGated ? row / 16 * 8 + row % 8 : row);
    has_w[i] = out < p.n_out;
    const void* matrix = is_up ? p.w_up[tile.expert] : p.w[tile.expert];
    w[i] = static_cast<const __nv_bfloat16*>(matrix) + (has_w[i] ? out : 0) * p.n_in + chunk * 8;
  }
  const std::uint32_t shared = ampere::shared_address(memory);
  const auto n_steps = static_cast<int>((p.n_in + kColumns - 1) / kColumns);
  const auto fetch = [&](int step) {
    const std::uint32_t stage = shared + step % kStages * kStageBytes;
    const int column = step * kColumns;
    const bool inside = step < n_steps && column + chunk * 8 < p.n_in;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int to = place_of(copied_row + i * (kThreads / kChunks), chunk);
      ampere::copy_async(stage + to, x[i] + (inside ? column : 0), inside && has_x[i]);
      ampere::copy_async(stage + kOperandBytes + to, w[i] + (inside ? column : 0),
                         inside && has_w[i]);
    }
    ampere::copy_commit();
  };

  const int first_row = warp / 4 * 64, first_matrix_row = warp % 4 * 32;
  float c[4][4][4] = {};  // [16 rows][8 matrix rows]
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  for (int step = 0; step < n_steps; ++step) {
    ampere::copy_wait<kStages - 2>();
    __syncthreads();  // everybody's copies are there, and nobody needs the stage before this one
    fetch(step + kStages - 1);
    const std::uint32_t x_stage = shared + step % kStages * kStageBytes;
    const std::uint32_t w_stage = x_stage + kOperandBytes;
#pragma unroll
    for (int k = 0; k < kColumns / 16; ++k) {
      std::uint32_t a[4][4], b[2][4];
#pragma unroll
      for (int m = 0; m < 4; ++m)
        ampere::load_matrices(
            a[m], x_stage + place_of(first_row + 16 * m + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int n = 0; n < 2; ++n)
        ampere::load_matrices(
            b[n], w_stage + place_of(first_matrix_row + 16 * n + lane % 8 + lane / 16 * 8,
                                     2 * k + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
          ampere::multiply_add(c[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
  }
  ampere::copy_wait<0>();

  auto* y = static_cast<__nv_bfloat16*>(p.y);
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + 16 * m + 8 * half + lane / 4;
      if (row >= tile.n) continue;
      __nv_bfloat16* to = y + (tile.first + row) * p.n_out;
      const auto store = [&](std::int64_t out, float even, float odd) {
        if (out < p.n_out)  // n_out is even
          *reinterpret_cast<__nv_bfloat162*>(to + out) = __floats2bfloat162_rn(even, odd);
      };
#pragma unroll
      for (int n = 0; n < 4; n += kGated ? 2 : 1) {
        const float* sum = c[m][n] + 2 * half;
        const int column = lane % 4 * 2;
        if constexpr (kGated) {
          const float* up = c[m][n + 1] + 2 * half;
          store(first_out + (first_matrix_row + 8 * n) / 2 + column, gated(sum[0], up[0]),
                gated(sum[1], up[1]));
        } else {
          store(first_out + first_matrix_row + 8 * n + column, sum[0], sum[1]);
        }
      }
    }
}

// --- thin ---------------------------------------------------------------------------------------

constexpr int kThinOut = 16;  // outputs of a block
constexpr int kRun = 128;     // columns that a warp takes at a time
constexpr int kStep = 32;     // of them: columns of one product; 16 bytes a lane and 8 rows
constexpr int kSteps = kRun / kStep;

template <bool kGated>
__global__ void __launch_bounds__(kThreads)
    thin_kernel(const __grid_constant__ ExpertLinear p, const std::int32_t* places,
                const ExpertTile* tiles) {
  constexpr int kMatrices = kGated ? 2 : 1;
  __shared__ float sums[kWarps][kMatrices][kThinTileRows][kThinOut + 1];
  let_next_kernel_start();
  await_earlier_kernels();
  const ExpertTile tile = tiles[blockIdx.y];
  if (tile.n == 0) return;
  const std::int64_t first_out = static_cast<std::int64_t>(blockIdx.x) * kThinOut;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  // Lanes own row lane / 4 of every 8, and 8 of a step's columns.
  const int first_column = lane % 4 * 8;
  const __nv_bfloat16* w[2 * kMatrices];
  bool has_w[2];
#pragma unroll
  for (int i = 0; i < 2 * kMatrices; ++i) {
    const std::int64_t out = first_out + i % 2 * 8 + lane / 4;
    const bool inside = out < p.n_out;
    has_w[i % 2] = inside;
    const void* matrix = i < 2 ? p.w[tile.expert] : p.w_up[tile.expert];
    w[i] = static_cast<const __nv_bfloat16*>(matrix) + (inside ? out : 0) * p.n_in + first_column;
  }
  const bool has_x = lane / 4 < tile.n;
  const std::int64_t x_row = has_x ? row_of(p, places, tile.first + lane / 4) : 0;
  const auto* x = static_cast<const __nv_bfloat16*>(p.x) + x_row * p.n_in + first_column;

  float c[kMatrices][4] = {};
  for (std::int64_t run = warp * kRun; run < p.n_in; run += kWarps * kRun) {
    uint4 a[kSteps][2 * kMatrices], b[kSteps];
    const auto load = [&](const __nv_bfloat16* from, std::int64_t column, bool inside) {
      return inside && column + first_column < p.n_in
                 ? __ldg(reinterpret_cast<const uint4*>(from + column))
                 : uint4{};
    };
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 2 * kMatrices; ++i)
        a[step][i] = load(w[i], run + step * kStep, has_w[i % 2]);
      b[step] = load(x, run + step * kStep, has_x);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int i = 0; i < kMatrices; ++i) {
        const uint4 &low = a[step][2 * i], &high = a[step][2 * i + 1];
        const std::uint32_t first[] = {low.x, high.x, low.y, high.y};
        const std::uint32_t second[] = {low.z, high.z, low.w, high.w};
        ampere::multiply_add(c[i], first, b[step].x, b[step].y);
        ampere::multiply_add(c[i], second, b[step].z, b[step].w);
      }
  }
#pragma unroll
  for (int i = 0; i < kMatrices; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[warp][i][lane % 4 * 2 + j % 2][lane / 4 + j / 2 * 8] = c[i][j];
  __syncthreads();

  for (int i = threadIdx.x; i < tile.n * kThinOut; i += kThreads) {
    const int row = i / kThinOut, out = i % kThinOut;
    if (first_out + out >= p.n_out) continue;
    float total[kMatrices] = {};
#pragma unroll
    for (int k = 0; k < kWarps; ++k)
#pragma unroll
      for (int j = 0; j < kMatrices; ++j) total[j] += sums[k][j][row][out];
    const float y = kGated ? gated(total[0], total[kMatrices - 1]) : total[0];
    static_cast<__nv_bfloat16*>(p.y)[(tile.first + row) * p.n_out + first_out + out] =
        __float2bfloat16_rn(y);
  }
}

template <bool kGated>
void launch(const ExpertLinear& p, const SortedPlaces& sorted, Stream stream) {
  const auto n_tiles =
      static_cast<unsigned>(most_expert_tiles(sorted.n_places, p.n_experts, sorted.tile_rows));
  if (sorted.tile_rows == kThinTileRows) {
    const auto n_blocks = static_cast<unsigned>((p.n_out + kThinOut - 1) / kThinOut);
    launch_overlapping("thin product of experts", thin_kernel<kGated>,
                       {n_blocks, n_tiles, kThreads}, stream, p, sorted.places, sorted.tiles);
  } else {
    constexpr int kOut = kGated ? kMatrixRows / 2 : kMatrixRows;
    const auto n_blocks = static_cast<unsigned>((p.n_out + kOut - 1) / kOut);
    check_cuda(cudaFuncSetAttribute(wide_kernel<kGated>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, kWideBytes),
               "product of experts: shared memory");
    wide_kernel<kGated>
        <<<dim3(n_tiles, n_blocks), kThreads, kWideBytes, stream>>>(p, sorted.places, sorted.tiles);
    check_launch("product of experts");
  }
}

}  // namespace

void expert_linear(const ExpertLinear& p, const SortedPlaces& sorted, Stream stream) {
  const bool is_tile = sorted.tile_rows == kThinTileRows || sorted.tile_rows == kWideTileRows;
  constexpr std::int64_t kMostInY = 65535;  // blocks of a grid
  const bool fits = most_expert_tiles(sorted.n_places, p.n_experts, sorted.tile_rows) <= kMostInY ||
                    sorted.tile_rows == kWideTileRows;
  if (!is_tile || !fits || p.n_in <= 0 || p.n_in % 8 != 0 || p.n_out <= 0 || p.n_out % 2 != 0)
    throw BadShape("product of experts: " + std::to_string(sorted.n_places) + " places, [" +
                   std::to_string(p.n_out) + ", " + std::to_string(p.n_in) +
                   "]: the width must be a multiple of 8, the outputs of 2");
  if (sorted.n_places == 0) return;
  if (p.scales) return expert_linear_f8(p, sorted, stream);
  if (p.w_up)
    launch<true>(p, sorted, stream);
  else
    launch<false>(p, sorted, stream);
}

}  // namespace starattn::kernels
