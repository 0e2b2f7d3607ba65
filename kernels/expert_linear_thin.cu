// SPDX-License-Identifier: Apache-2.0
// Products of experts with few rows each, bound by reading the matrices. A warp has 16 matrix rows
// (eight of either matrix where there are two), goes along them by itself and multiplies with
// mma.sync, the matrix as the left operand. What it reads goes straight into the registers that
// take it, two runs of columns ahead: few warps wait for each other, and nothing is put in place.
// The two halves of the columns have a sum each. Where a step's experts are too few to keep the
// multiprocessors busy, two warps take a half each, and the bits are the same.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>

#include "ampere.cuh"
#include "expert_linear_thin.h"
#include "expert_rows.cuh"
#include "f8.cuh"
#include "f8_blocks.h"
#include "launch.cuh"
#include "thin_scales.cuh"
#include "warp.cuh"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 2;  // of a block
constexpr int kThreads = 32 * kWarps;
constexpr int kRun = kThinRun;  // columns; one block of scales has them all
constexpr int kDepth = 2;       // runs of the matrix that are on their way

// kSplit: warps that share the same matrix rows. kBlocks: that a multiprocessor has room for, which
// bounds the registers.
template <bool kIsF8_, bool kGated_, int kSplit_, int kBlocks_>
struct Way {
  static constexpr bool kIsF8 = kIsF8_, kGated = kGated_;
  static constexpr int kSplit = kSplit_, kBlocks = kBlocks_;
  static constexpr int kLaneColumns = kIsF8 ? 16 : 8;  // 16 bytes
  static constexpr int kStep = 4 * kLaneColumns;       // of a run
  static constexpr int kSteps = kRun / kStep;
  static constexpr int kBytes = kIsF8 ? 1 : 2;
  static constexpr int kXPieces = kLaneColumns / 8;
  static constexpr int kOut = kGated ? 8 : 16;  // of a warp
};

// What a lane has of a run: of each step, from the lane's first column on, 16 bytes of row lane / 4
// of the first eight matrix rows and of the second; and as many columns of row lane / 4 of x.
template <typename Way>
struct MatrixRun {
  uint4 w[Way::kSteps][2];
  float scales[2];
};
template <typename Way>
struct XRun {
  uint4 x[Way::kSteps][Way::kXPieces];
};

// 16 bytes that nobody else reads. A run's row of FP8 is 128 bytes: the next run's come with it.
template <bool kIsF8>
__device__ __forceinline__ uint4 read_once(const char* from) {
  uint4 x;
  if constexpr (kIsF8)
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(from));
  else
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(from));
  return x;
}

// Where a lane reads. One whose row there is not reads another's, which nobody takes.
template <typename Way>
struct Operands {
  const char *w[2], *x;  // the lane's first column of the first run
  RunScales scales[2];
  int first_scale[2];

  // n: columns that there are from the lane's first one of this run on, where it is not whole.
  // Behind them x is 0, and the first columns of the matrix row, before the lane's own, stand in.
  template <bool kWhole>
  __device__ __forceinline__ MatrixRun<Way> matrix(int run, int n = 0) const {
    MatrixRun<Way> to;
#pragma unroll
    for (int step = 0; step < Way::kSteps; ++step) {
      const bool is_there = kWhole || step * Way::kStep < n;
      const int lane_column = static_cast<int>(threadIdx.x) % 4 * Way::kLaneColumns;
      const int column = is_there ? run * kRun + step * Way::kStep : -lane_column;
#pragma unroll
      for (int half = 0; half < 2; ++half)
        to.w[step][half] = read_once<Way::kIsF8>(w[half] + column * Way::kBytes);
    }
    if constexpr (Way::kIsF8) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        to.scales[half] = scales[half].of(first_scale[half], run);
    }
    return to;
  }
  template <bool kWhole>
  __device__ __forceinline__ XRun<Way> rows(int run, int n = 0) const {
    XRun<Way> to;
#pragma unroll
    for (int step = 0; step < Way::kSteps; ++step)
#pragma unroll
      for (int i = 0; i < Way::kXPieces; ++i) {
        const char* const at = x + (run * kRun + step * Way::kStep + 8 * i) * 2;
        const bool is_there = kWhole || step * Way::kStep < n;
        to.x[step][i] = is_there ? __ldg(reinterpret_cast<const uint4*>(at)) : uint4{};
      }
    return to;
  }
};

// Of a table, and not what this multiprocessor may have kept of the one that was there before.
template <typename T>
__device__ __forceinline__ T* entry(T* const* table, int i) {
  return reinterpret_cast<T*>(__ldcg(reinterpret_cast<const unsigned long long*>(table + i)));
}

template <typename Way>
__device__ __forceinline__ Operands<Way> operands_of(const ExpertLinear& p, int expert,
                                                     int first_out) {
  const int lane = threadIdx.x % 32;
  const auto n_out = static_cast<int>(p.n_out), n_in = static_cast<int>(p.n_in);
  Operands<Way> of;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool is_up = Way::kGated && half == 1;
    const int out = min(first_out + lane / 4 + (Way::kGated ? 0 : 8 * half), n_out - 1);
    of.w[half] =
        static_cast<const char*>(entry(is_up ? p.w_up : p.w, expert)) +
        (static_cast<std::int64_t>(out) * n_in + lane % 4 * Way::kLaneColumns) * Way::kBytes;
    if constexpr (Way::kIsF8) {
      of.scales[half] = RunScales(entry(is_up ? p.up_scales : p.scales, expert), p.block_rows,
                                  p.block_cols, n_in);
      of.first_scale[half] = of.scales[half].first_of(p.first_row + out);
    }
  }
  return of;
}

// part[16, 8] = a b, or += it, over 16 columns. Of FP8 a lane's four lie side by side, in both
// operands, so that the 16 come in another order than mma.sync names them.
__device__ __forceinline__ void multiply(float (&part)[4], const std::uint32_t (&a)[4],
                                         std::uint32_t b0, std::uint32_t b1, bool is_first) {
  if (is_first)
    ampere::multiply(part, a, b0, b1);
  else
    ampere::multiply_add(part, a, b0, b1);
}
__device__ __forceinline__ void multiply_step(float (&part)[4], const uint4 (&w)[2],
                                              const uint4 (&x)[2], bool is_first) {
  const std::uint32_t low[] = {w[0].x, w[0].y, w[0].z, w[0].w};
  const std::uint32_t high[] = {w[1].x, w[1].y, w[1].z, w[1].w};
  const std::uint32_t b[] = {x[0].x, x[0].y, x[0].z, x[0].w, x[1].x, x[1].y, x[1].z, x[1].w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const WidePairs l = widen_four(low[i]), h = widen_four(high[i]);
    multiply(part, {l.first, h.first, l.second, h.second}, b[2 * i], b[2 * i + 1],
             is_first && i == 0);
  }
}
__device__ __forceinline__ void multiply_step(float (&part)[4], const uint4 (&w)[2],
                                              const uint4 (&x)[1], bool is_first) {
  multiply(part, {w[0].x, w[1].x, w[0].y, w[1].y}, x[0].x, x[0].y, is_first);
  multiply(part, {w[0].z, w[1].z, w[0].w, w[1].w}, x[0].z, x[0].w, false);
}

// c[16, 8] += a run's products.
template <typename Way>
__device__ __forceinline__ void multiply_run(float (&c)[4], const MatrixRun<Way>& matrix,
                                             const XRun<Way>& rows) {
  float part[2][4];  // so that a product does not wait for the one before it
#pragma unroll
  for (int step = 0; step < Way::kSteps; ++step)
    multiply_step(part[step % 2], matrix.w[step], rows.x[step], step < 2);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float sum = part[0][j] + part[1][j];
    c[j] = Way::kIsF8 ? fmaf(matrix.scales[j / 2], sum, c[j]) : c[j] + sum;
  }
}

// What 16 matrix rows and the tile's rows of x, where lane / 4 and lane % 4 say, sum to.
template <typename Way>
__device__ __forceinline__ void put(const ExpertLinear& p, const ExpertTile& tile, int first_out,
                                    const float (&c)[4]) {
  const int lane = threadIdx.x % 32, out = first_out + lane / 4;
  const auto n_out = static_cast<int>(p.n_out);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int row = lane % 4 * 2 + j;
    if (row >= tile.n) continue;
    auto* const to = static_cast<__nv_bfloat16*>(p.y) + (tile.first + row) * p.n_out + out;
    if constexpr (Way::kGated) {
      if (out < n_out) *to = __float2bfloat16_rn(gated(c[j], c[2 + j]));
    } else {
      if (out < n_out) to[0] = __float2bfloat16_rn(c[j]);
      if (out + 8 < n_out) to[8] = __float2bfloat16_rn(c[2 + j]);
    }
  }
}

template <typename Way>
__global__ void __launch_bounds__(kThreads, Way::kBlocks)
    thin_experts_kernel(const __grid_constant__ ExpertLinear p,
                        const __grid_constant__ SortedPlaces sorted) {
  __shared__ float4 second_half[32];
  static_assert(Way::kSplit == 1 || Way::kSplit == kWarps);
  // A product behind this one may read before it waits (is_behind_another), so this one waits
  // before it lets that start.
  if (!p.is_behind_another) await_earlier_kernels();
  let_next_kernel_start();
  // Whether there is such a tile is asked at the same time as what it says, which is nothing if
  // there is not. Neither comes from what this multiprocessor may have kept of the layer before.
  const std::int32_t* const at = &sorted.tiles[blockIdx.y].expert;
  const int n_tiles = __ldcg(sorted.n_tiles);
  const ExpertTile tile{__ldcg(at), __ldcg(at + 1), __ldcg(at + 2)};
  if (static_cast<int>(blockIdx.y) >= n_tiles) return await_earlier_kernels();

  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
  const int first_out = (static_cast<int>(blockIdx.x) * kWarps + warp) / Way::kSplit * Way::kOut;
  Operands<Way> from = operands_of<Way>(p, tile.expert, first_out);
  const auto n_in = static_cast<int>(p.n_in);
  const int n_runs = (n_in + kRun - 1) / kRun, middle = n_runs / 2;
  const bool is_second = Way::kSplit == 2 && warp == 1;
  const int end = Way::kSplit == 2 && !is_second ? middle : n_runs;
  const int n_whole = min(end, n_in / kRun);
  int run = is_second ? middle : 0;
  MatrixRun<Way> ahead[kDepth];
#pragma unroll
  for (int i = 0; i < kDepth; ++i)
    if (run + i < n_whole) ahead[i] = from.template matrix<true>(run + i);

  await_earlier_kernels();
  const int lane = threadIdx.x % 32, lane_column = lane % 4 * Way::kLaneColumns;
  const int x_row = lane / 4 < tile.n ? lane / 4 : 0;
  from.x = static_cast<const char*>(p.x) +
           (row_of(p, sorted.places, tile.first + x_row) * n_in + lane_column) * 2;
  float c[4] = {}, first_half[4] = {};
  const auto add = [&](const MatrixRun<Way>& matrix, const XRun<Way>& rows) {
    if (Way::kSplit == 1 && run == middle) {
#pragma unroll
      for (int j = 0; j < 4; ++j) first_half[j] = c[j], c[j] = 0;
    }
    multiply_run<Way>(c, matrix, rows);
  };
#pragma unroll 1
  while (run < n_whole)
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      if (run >= n_whole) break;
      add(ahead[i], from.template rows<true>(run));
      if (run + kDepth < n_whole) ahead[i] = from.template matrix<true>(run + kDepth);
      ++run;
    }
  if (run < end) {
    const int n = n_in - run * kRun - lane_column;
    add(from.template matrix<false>(run, n), from.template rows<false>(run, n));
  }

  if constexpr (Way::kSplit == 2) {
    if (is_second) second_half[lane] = {c[0], c[1], c[2], c[3]};
    __syncthreads();
    if (is_second) return;
    const float4 second = second_half[lane];
#pragma unroll
    for (int j = 0; j < 4; ++j) first_half[j] = c[j];
    c[0] = second.x, c[1] = second.y, c[2] = second.z, c[3] = second.w;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) c[j] += first_half[j];
  put<Way>(p, tile, first_out, c);
}

template <typename Way>
void launch_way(const ExpertLinear& p, const SortedPlaces& sorted, std::int64_t n_tiles,
                Stream stream) {
  constexpr int kOut = kWarps / Way::kSplit * Way::kOut;
  launch_overlapping("product of experts", thin_experts_kernel<Way>,
                     {static_cast<unsigned>((p.n_out + kOut - 1) / kOut),
                      static_cast<unsigned>(n_tiles), kThreads},
                     stream, p, sorted);
}

// As measured (docs/performance.md): a warp has whole rows of FP8 where that gives every
// multiprocessor enough warps, and few enough registers for 18 at a time; otherwise two share them.
// bf16, of which a run has twice the bytes, is read as fast by halves in any case.
template <bool kGated>
void launch(const ExpertLinear& p, const SortedPlaces& sorted, Stream stream) {
  const std::int64_t n_tiles = most_expert_tiles(sorted.n_places, p.n_experts, sorted.tile_rows);
  constexpr std::int64_t kMostInY = 65535;  // blocks of a grid
  if (n_tiles > kMostInY)
    throw BadShape("product of experts with few rows each: " + std::to_string(sorted.n_places) +
                   " places are too many");
  using Halves = Way<true, kGated, 2, 1>;
  constexpr std::int64_t kEnough = 32;  // warps of a multiprocessor
  if (!p.scales)
    launch_way<Way<false, kGated, 2, 1>>(p, sorted, n_tiles, stream);
  else if (n_tiles * p.n_out <= kEnough * n_multiprocessors() * Halves::kOut)
    launch_way<Halves>(p, sorted, n_tiles, stream);
  else
    launch_way<Way<true, kGated, 1, 9>>(p, sorted, n_tiles, stream);
}

}  // namespace

void expert_linear_thin(const ExpertLinear& p, const SortedPlaces& sorted, Stream stream) {
  if ((p.w_up != nullptr && p.scales != nullptr) != (p.up_scales != nullptr))
    throw BadShape("product of experts: either matrix needs scales, or none");
  if (p.scales) check_f8_blocks("product of FP8 experts", p.n_in, p.block_rows, p.block_cols);
  p.w_up ? launch<true>(p, sorted, stream) : launch<false>(p, sorted, stream);
}

}  // namespace starattn::kernels
