// SPDX-License-Identifier: Apache-2.0
// Products of few rows with up to three matrices in one launch; the work is in thin_product.cuh.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "awaited_rows.cuh"
#include "f8_blocks.h"
#include "launch.cuh"
#include "peer_lines.cuh"
#include "thin_linear.h"
#include "thin_linear_sm90.h"
#include "thin_output.cuh"
#include "thin_product.cuh"

namespace starattn::kernels {
namespace {

// A tile: Tile::kOut columns of one output, or of the gated pair.
template <typename Tile>
struct LinearJob {
  static constexpr int kOut = Tile::kOut;
  const ThinLinear& p;

  __device__ __forceinline__ ThinPlace place_of(int tile) const {
    return kernels::place_of<Tile::kGated, kOut>(p, tile);
  }
  // This warp's m-th matrix, and its first row in the tile.
  __device__ __forceinline__ const ThinOutput& matrix_of(const ThinPlace& place, int m,
                                                         int& row) const {
    row = m * Tile::kMatrixChunks * 8 + static_cast<int>(threadIdx.x) % 32 / 4;
    if (!Tile::kGated || row < kOut) return p.outputs[place.which];
    row -= kOut;
    return p.outputs[1];
  }

  __device__ __forceinline__ ThinMatrix<Tile> matrix(int tile) const {
    const ThinPlace place = place_of(tile);
    ThinMatrix<Tile> matrix;
#pragma unroll
    for (int m = 0; m < Tile::kMatrices; ++m) {
      int row;
      const ThinOutput& of = matrix_of(place, m, row);
      matrix.set(m, of.w, place.first_out + row, of.n_out, p.n_in);
    }
    return matrix;
  }
  __device__ __forceinline__ ThinScales<Tile> scales(int tile) const {
    const ThinPlace place = place_of(tile);
    ThinScales<Tile> scales;
#pragma unroll
    for (int m = 0; m < Tile::kMatrices; ++m) {
      int row;
      const ThinOutput& of = matrix_of(place, m, row);
      const std::int64_t out = place.first_out + row;
      scales.set(m, of, out, p.n_in);
    }
    return scales;
  }
  __device__ __forceinline__ void finish(int tile, const typename Tile::Sums& sums) const {
    await_earlier_kernels();
    put_tile<Tile::kGated, Tile::kRows, kOut>(
        p, place_of(tile), threadIdx.x, kThreads,
        [&](int row, int matrix_row) { return total<Tile>(sums, row, matrix_row); });
  }
};

// Rows that are awaited are few.
template <typename Tile>
constexpr bool can_await = Tile::kColumns == 1;

template <typename Tile>
__global__ void __launch_bounds__(kThreads, Tile::kBlocks)
    thin_linear_kernel(const __grid_constant__ ThinLinear p, int n_tiles) {
  extern __shared__ uint4 memory[];
  const int row = threadIdx.x % 32 / 4, n_rows = static_cast<int>(p.n_rows);
  let_next_kernel_start();
  const auto await_rows = [&] {
    const void* x = p.x;
    if (can_await<Tile> && p.awaited.n_rows > 0)
      x = ready_rows(p.awaited, reinterpret_cast<float*>(memory + Tile::kRingChunks));
    else
      await_earlier_kernels();
    return ThinRows(x, row < n_rows ? row : 0, (n_rows - row + 7) / 8, p.n_in);
  };
  multiply_tiles<Tile>(LinearJob<Tile>{p}, await_rows, p.n_in, blockIdx.x, gridDim.x, n_tiles,
                       memory);
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
  p.send.first_row += first;
  return p;
}

template <typename Tile>
int tiles_of(const ThinLinear& p) {
  return n_tiles_of<Tile::kGated, Tile::kOut>(p);
}

template <typename Tile>
void launch(const ThinLinear& p, Stream stream) {
  check_cuda(cudaFuncSetAttribute(thin_linear_kernel<Tile>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             "thin product: shared memory");
  const int n_tiles = tiles_of<Tile>(p), room = Tile::kBlocks * n_multiprocessors();
  launch_overlapping(
      "thin product", thin_linear_kernel<Tile>,
      {static_cast<unsigned>(std::min(n_tiles, room)), 1, kThreads, Tile::kSharedBytes}, stream, p,
      n_tiles);
}

// Of a block; 99 KB on small GPUs.
int most_shared_bytes() {
  static const int n_bytes =
      device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, "thin product: shared memory");
  return n_bytes;
}

template <typename Tile>
bool fits() {
  return most_shared_bytes() >= Tile::kSharedBytes;
}

template <typename Tile, typename Smaller>
void launch_fitting(const ThinLinear& p, Stream stream) {
  if (fits<Tile>())
    launch<Tile>(p, stream);
  else
    launch<Smaller>(p, stream);
}

// Where each multiprocessor has but one tile to work on, the ring has all of its memory.
template <typename Deep, typename Tile, typename Smaller>
void launch_fitting(const ThinLinear& p, Stream stream) {
  if (fits<Deep>() && tiles_of<Deep>(p) <= n_multiprocessors())
    launch<Deep>(p, stream);
  else
    launch_fitting<Tile, Smaller>(p, stream);
}

// Tiles as measured on an H100 and an H200 (docs/performance.md).
template <bool kGated>
void launch_bf16(const ThinLinear& p, Stream stream) {
  if (p.n_rows <= 8)
    return launch_fitting<ThinTile<false, 1, 1, 15, kGated>, ThinTile<false, 1, 1, 8, kGated>,
                          ThinTile<false, 1, 1, 7, kGated>>(p, stream);
  if (takes_thin_sm90(p, p.n_rows)) return thin_linear_sm90(p, stream);
  if (p.n_rows <= 16)
    return launch_fitting<ThinTile<false, 2, 2, 5, kGated>, ThinTile<false, 2, 2, 3, kGated>>(
        p, stream);
  launch_fitting<ThinTile<false, 2, 4, 4, kGated>, ThinTile<false, 2, 4, 2, kGated>>(p, stream);
}

template <bool kGated>
void launch_f8(const ThinLinear& p, Stream stream) {
  if (p.n_rows <= 8)
    return launch_fitting<ThinTile<true, 2, 1, 8, kGated>, ThinTile<true, 2, 1, 4, kGated>,
                          ThinTile<true, 2, 1, 3, kGated>>(p, stream);
  if (takes_thin_sm90(p, p.n_rows)) return thin_linear_sm90(p, stream);
  using Many = ThinTile<true, 2, 4, 4, kGated>;
  if (p.n_rows > 16 && fits<Many>()) return launch<Many>(p, stream);
  constexpr std::int64_t kRows = 16;
  for (std::int64_t first = 0; first < p.n_rows; first += kRows)
    launch_fitting<ThinTile<true, 2, 2, 6, kGated>, ThinTile<true, 2, 2, 3, kGated>,
                   ThinTile<true, 2, 2, 2, kGated>>(
        rows_of(p, first, std::min(kRows, p.n_rows - first)), stream);
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

void check_blocks(const ThinLinear& p) {
  for (int i = 0; i < p.n_outputs; ++i) {
    const ThinOutput& of = p.outputs[i];
    if (!of.scales) throw BadShape("thin product: FP8 matrices beside others");
    check_f8_blocks("thin FP8 product", p.n_in, of.block_rows, of.block_cols);
  }
}

void check_exchange(const ThinLinear& p) {
  const bool is_one = p.kind == ThinKind::gated || (p.kind == ThinKind::bf16 && p.n_outputs == 1);
  const PeerSend& send = p.send;
  if (send.n_peers > 0 && (!is_one || send.n_peers > kMostPeers + 1 ||
                           send.n_columns != p.outputs[0].n_out || send.n_columns % 8 != 0))
    throw BadShape("thin product: only one output in bf16 goes to other devices, and its " +
                   std::to_string(p.outputs[0].n_out) + " columns must be the message's " +
                   std::to_string(send.n_columns) + ", a multiple of 8");
  if (p.awaited.n_rows > 0) check_awaited(p.awaited, p.n_rows, p.n_in);
}

}  // namespace

void thin_linear(const ThinLinear& p, Stream stream) {
  check_shape(p);
  check_exchange(p);
  if (p.outputs[0].scales) check_blocks(p);
  const bool is_gated = p.kind == ThinKind::gated;
  for (std::int64_t first = 0, n = 0; first < p.n_rows; first += n) {
    n = std::min(p.n_rows - first, kMostThinRowsSm90);
    if (!takes_thin_sm90(p, n)) n = std::min<std::int64_t>(n, kMostThinRows);
    const ThinLinear part = rows_of(p, first, n);
    if (p.outputs[0].scales)
      is_gated ? launch_f8<true>(part, stream) : launch_f8<false>(part, stream);
    else
      is_gated ? launch_bf16<true>(part, stream) : launch_bf16<false>(part, stream);
  }
}

}  // namespace starattn::kernels
