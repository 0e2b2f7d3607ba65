// SPDX-License-Identifier: Apache-2.0
// Products of experts with many rows: a block has 128 of them and 128 matrix rows. Both operands
// pass through three stages of shared memory, 64 columns at a time, and eight warps multiply 64 by
// 32 of them with mma.sync. Blocks of tiles that are not needed return at once, so the host never
// has to know how many rows an expert has.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>

#include "ampere.cuh"
#include "cuda_check.h"
#include "expert_linear_thin.h"
#include "expert_rows.cuh"
#include "experts.h"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

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
    wide_kernel(const __grid_constant__ ExpertLinear p,
                const __grid_constant__ SortedPlaces sorted) {
  extern __shared__ __align__(128) std::uint8_t memory[];
  constexpr int kOut = kGated ? kMatrixRows / 2 : kMatrixRows;
  if (blockIdx.x >= *sorted.n_tiles) return;
  const ExpertTile tile = sorted.tiles[blockIdx.x];
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
    const std::int64_t x_row = has_x[i] ? row_of(p, sorted.places, tile.first + row) : 0;
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

template <bool kGated>
void launch(const ExpertLinear& p, const SortedPlaces& sorted, Stream stream) {
  const auto n_tiles =
      static_cast<unsigned>(most_expert_tiles(sorted.n_places, p.n_experts, sorted.tile_rows));
  constexpr int kOut = kGated ? kMatrixRows / 2 : kMatrixRows;
  const auto n_blocks = static_cast<unsigned>((p.n_out + kOut - 1) / kOut);
  check_cuda(cudaFuncSetAttribute(wide_kernel<kGated>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  kWideBytes),
             "product of experts: shared memory");
  wide_kernel<kGated><<<dim3(n_tiles, n_blocks), kThreads, kWideBytes, stream>>>(p, sorted);
  check_launch("product of experts");
}

}  // namespace

void expert_linear(const ExpertLinear& p, const SortedPlaces& sorted, Stream stream) {
  if (p.n_in <= 0 || p.n_in % 8 != 0 || p.n_out <= 0 || p.n_out % 2 != 0)
    throw BadShape("product of experts: " + std::to_string(sorted.n_places) + " places, [" +
                   std::to_string(p.n_out) + ", " + std::to_string(p.n_in) +
                   "]: the width must be a multiple of 8, the outputs of 2");
  if (sorted.n_places == 0) return;
  if (sorted.tile_rows == kThinTileRows) return expert_linear_thin(p, sorted, stream);
  if (sorted.tile_rows != kWideTileRows || p.scales)
    throw BadShape("product of experts: tiles of " + std::to_string(sorted.tile_rows) + " rows");
  if (p.w_up)
    launch<true>(p, sorted, stream);
  else
    launch<false>(p, sorted, stream);
}

}  // namespace starattn::kernels
