// SPDX-License-Identifier: Apache-2.0
// One thread of a block fetches runs of 128 columns of 64 matrix rows and of all rows of x through
// the copy engine; a warpgroup multiplies them (wgmma, the matrix as the left operand). As in
// thin_product.cuh run i belongs to share i % 8 of the columns; each share has a sum of its own,
// and these are added in order, so that a row has the bits that it has there. Where tiles are fewer
// than multiprocessors, the blocks of a cluster have some shares of a tile each.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "attention.h"
#include "hopper.cuh"
#include "launch.cuh"
#include "tensor_map.h"
#include "thin_linear_sm90.h"
#include "thin_output.cuh"

namespace starattn::kernels {
namespace {

constexpr int kShares = kThinShares, kRun = kThinRun;
constexpr int kRows = 32;  // of x
constexpr int kMatrixRows = 64;
constexpr int kBoxColumns = 64;     // of the two boxes of a run
constexpr int kThreads = 128 + 32;  // those that multiply, then the warp that fetches
constexpr int kMatrixBytes = kMatrixRows * kRun * 2;
constexpr int kStageBytes = kMatrixBytes + kRows * kRun * 2;
using Sums = float[kRows][kMatrixRows + 1];

struct Task {
  CUtensorMap x_map, w_maps[kMaxThinOutputs];
  ThinLinear p;
  int n_tiles;
};

// kSplit: blocks of a tile.
template <bool kGated_, int kSplit_, int kStages_ = 4>
struct Tile {
  [[maybe_unused]] static constexpr bool kGated = kGated_;
  static constexpr int kSplit = kSplit_, kStages = kStages_;
  static constexpr int kOwnShares = kShares / kSplit;
  [[maybe_unused]] static constexpr int kOut = kGated ? kMatrixRows / 2 : kMatrixRows;
  // Several blocks' sums take the place of the stages, which no more tiles need.
  static constexpr int kSumBytes = kSplit == 1 ? static_cast<int>(sizeof(Sums)) : 0;
  static constexpr int kSharedBytes = 1024 + kStages * kStageBytes + kSumBytes + 2 * kStages * 8;
  static_assert(kOwnShares * sizeof(Sums) <= kStages * kStageBytes);
};

template <int kStages>
struct Shared {
  char* stages;
  Sums* sums;
  std::uint64_t *full, *empty;  // of each stage

  __device__ Shared(char* memory, int sum_bytes) {
    const std::uint32_t address = hopper::shared_address(memory);
    stages = memory + ((address + 1023) / 1024 * 1024 - address);
    char* end = stages + kStages * kStageBytes;
    sums = reinterpret_cast<Sums*>(sum_bytes > 0 ? end : stages);
    full = reinterpret_cast<std::uint64_t*>(end + sum_bytes);
    empty = full + kStages;
  }
  __device__ char* w(int stage, int box) const {
    return stages + stage * kStageBytes + box * (kMatrixBytes / 2);
  }
  __device__ char* x(int stage, int box) const {
    return stages + stage * kStageBytes + kMatrixBytes + box * (kRows * kBoxColumns * 2);
  }
};

// The runs of this block's shares, in order.
template <typename Tile>
struct Runs {
  static __device__ __forceinline__ int first() {
    return static_cast<int>(blockIdx.x) % Tile::kSplit * Tile::kOwnShares;
  }
  // `run` is one of them.
  static __device__ __forceinline__ int next(int run) {
    return ++run % Tile::kOwnShares == 0 ? run + kShares - Tile::kOwnShares : run;
  }
};

// One thread.
template <typename Tile>
[[maybe_unused]] __device__ void fetch(const Task& task, const Shared<Tile::kStages>& shared) {
  const int n_runs = static_cast<int>(task.p.n_in) / kRun;
  const auto fetch_w = [&](int tile, int run, int stage) {
    const ThinPlace place = place_of<Tile::kGated, Tile::kOut>(task.p, tile);
    const int row = static_cast<int>(place.first_out);
    std::uint64_t* full = shared.full + stage;
    hopper::barrier_expect(full, kStageBytes);
    for (int box = 0; box < 2; ++box) {
      const int column = run * kRun + box * kBoxColumns;
      hopper::tma_load(shared.w(stage, box), &task.w_maps[place.which], full, column, 0, row);
      if (Tile::kGated)
        hopper::tma_load(shared.w(stage, box) + kMatrixBytes / 4, &task.w_maps[1], full, column, 0,
                         row);
    }
  };
  const auto fetch_x = [&](int run, int stage) {
    for (int box = 0; box < 2; ++box)
      hopper::tma_load(shared.x(stage, box), &task.x_map, shared.full + stage,
                       run * kRun + box * kBoxColumns, 0, 0);
  };
  const int first = static_cast<int>(blockIdx.x) / Tile::kSplit;
  const int stride = static_cast<int>(gridDim.x) / Tile::kSplit;
  // The matrix is on its way before earlier kernels have ended, x is not.
  int n_ahead = 0;
  for (int run = Runs<Tile>::first(); run < n_runs && n_ahead < Tile::kStages;
       run = Runs<Tile>::next(run))
    fetch_w(first, run, n_ahead++);
  await_earlier_kernels();
  hopper::Ring<Tile::kStages> ring;
  for (int tile = first, n = 0; tile < task.n_tiles; tile += stride)
    for (int run = Runs<Tile>::first(); run < n_runs; run = Runs<Tile>::next(run), ++n) {
      if (n >= n_ahead) {
        hopper::barrier_wait(shared.empty + ring.stage, ring.phase ^ 1);
        fetch_w(tile, run, ring.stage);
      }
      fetch_x(run, ring.stage);
      ring.step();
    }
}

// sums[64, 32] += one run's products.
template <int kStages>
[[maybe_unused]] __device__ __forceinline__ void multiply_run(const Shared<kStages>& shared,
                                                              int stage, float (&sums)[16]) {
  hopper::touch(sums);
  hopper::wgmma_fence();
#pragma unroll
  for (int box = 0; box < 2; ++box) {
    const std::uint64_t w = hopper::tile_descriptor(shared.w(stage, box), 0);
    const std::uint64_t x = hopper::tile_descriptor(shared.x(stage, box), 0);
#pragma unroll
    for (int i = 0; i < kBoxColumns / 16; ++i) hopper::wgmma_ss(sums, w + 2 * i, x + 2 * i, 1);
  }
  hopper::wgmma_commit();
  hopper::wgmma_wait<0>();
  hopper::touch(sums);
}

// Where wgmma leaves its sums.
[[maybe_unused]] __device__ __forceinline__ void put(const float (&from)[16], Sums& to) {
  const int lane = threadIdx.x % 32, matrix_row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < 16; ++i)
    to[i / 4 * 8 + lane % 4 * 2 + i % 2][matrix_row + i / 2 % 2 * 8] = from[i];
}

// What lies at this place in the shared memory of another block of the cluster.
[[maybe_unused]] __device__ __forceinline__ float of_block(const float* at, int block) {
  std::uint32_t there;
  float value;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(there)
               : "r"(hopper::shared_address(at)), "r"(block));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(there) : "memory");
  return value;
}

// The shares of a tile that this block has, each summed.
template <typename Tile>
[[maybe_unused]] __device__ __forceinline__ void multiply_tile(
    const Shared<Tile::kStages>& shared, int n_runs, hopper::Ring<Tile::kStages>& ring,
    float (&sums)[Tile::kOwnShares][16]) {
#pragma unroll
  for (auto& share : sums)
#pragma unroll
    for (float& sum : share) sum = 0;
#pragma unroll 1
  for (int first = Runs<Tile>::first(); first < n_runs; first += kShares) {
#pragma unroll
    for (int share = 0; share < Tile::kOwnShares; ++share) {
      if (first + share >= n_runs) continue;
      hopper::barrier_wait(shared.full + ring.stage, ring.phase);
      multiply_run(shared, ring.stage, sums[share]);
      if (threadIdx.x % 32 == 0) hopper::barrier_arrive(shared.empty + ring.stage);
      ring.step();
    }
  }
}

// A block has all shares of its tiles.
template <typename Tile>
[[maybe_unused]] __device__ void multiply(const Task& task, const Shared<Tile::kStages>& shared) {
  hopper::Ring<Tile::kStages> ring;
  for (int tile = blockIdx.x; tile < task.n_tiles; tile += gridDim.x) {
    float sums[kShares][16];
    multiply_tile<Tile>(shared, static_cast<int>(task.p.n_in) / kRun, ring, sums);
#pragma unroll
    for (int share = 1; share < kShares; ++share)
#pragma unroll
      for (int i = 0; i < 16; ++i) sums[0][i] += sums[share][i];
    if (tile != static_cast<int>(blockIdx.x)) hopper::named_sync(1, 128);  // those before are read
    put(sums[0], shared.sums[0]);
    hopper::named_sync(1, 128);
    await_earlier_kernels();
    put_tile<Tile::kGated, kRows, Tile::kOut>(
        task.p, place_of<Tile::kGated, Tile::kOut>(task.p, tile), threadIdx.x, 128,
        [&](int row, int matrix_row) { return shared.sums[0][row][matrix_row]; });
  }
}

// A block has some shares of one tile.
template <typename Tile>
[[maybe_unused]] __device__ void multiply_shares(const Task& task,
                                                 const Shared<Tile::kStages>& shared) {
  hopper::Ring<Tile::kStages> ring;
  float sums[Tile::kOwnShares][16];
  multiply_tile<Tile>(shared, static_cast<int>(task.p.n_in) / kRun, ring, sums);
  hopper::named_sync(1, 128);  // nobody reads the stages any more
#pragma unroll
  for (int share = 0; share < Tile::kOwnShares; ++share) put(sums[share], shared.sums[share]);
}
template <typename Tile>
[[maybe_unused]] __device__ void add_shares(const Task& task, const Shared<Tile::kStages>& shared) {
  const int tile = static_cast<int>(blockIdx.x) / Tile::kSplit;
  const int block = static_cast<int>(blockIdx.x) % Tile::kSplit;
  await_earlier_kernels();
  put_tile<Tile::kGated, kRows, Tile::kOut>(
      task.p, place_of<Tile::kGated, Tile::kOut>(task.p, tile), block * 128 + threadIdx.x,
      Tile::kSplit * 128, [&](int row, int matrix_row) {
        float sum = 0;
#pragma unroll
        for (int share = 0; share < kShares; ++share)
          sum += of_block(&shared.sums[share % Tile::kOwnShares][row][matrix_row],
                          share / Tile::kOwnShares);
        return sum;
      });
}

template <typename Tile>
__global__ void __launch_bounds__(kThreads, 2)
    thin_linear_sm90_kernel(const __grid_constant__ Task task) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char memory[];
  const Shared<Tile::kStages> shared(memory, Tile::kSumBytes);
  if (threadIdx.x == 128) {
    for (int i = 0; i < Tile::kStages; ++i) {
      hopper::barrier_init(shared.full + i, 1);
      hopper::barrier_init(shared.empty + i, 4);  // one of each warp
    }
    hopper::barrier_init_done();
  }
  let_next_kernel_start();
  __syncthreads();
  const bool fetches = threadIdx.x >= 128;
  if (fetches) {
    if (threadIdx.x == 128) fetch<Tile>(task, shared);
    __syncwarp();
    await_earlier_kernels();
  }
  if constexpr (Tile::kSplit == 1) {
    if (!fetches) multiply<Tile>(task, shared);
  } else {
    if (!fetches) multiply_shares<Tile>(task, shared);
    const auto meet = [] {
      asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
    };
    meet();
    if (!fetches) add_shares<Tile>(task, shared);
    meet();  // nobody leaves while its sums are read
  }
#else
  asm volatile("trap;");  // takes_thin_sm90() keeps everybody from here
#endif
}

template <typename Tile>
void launch(Task& task, Stream stream) {
  check_cuda(cudaFuncSetAttribute(thin_linear_sm90_kernel<Tile>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             "thin product: shared memory");
  task.n_tiles = n_tiles_of<Tile::kGated, Tile::kOut>(task.p);
  const int n_blocks = Tile::kSplit > 1 ? task.n_tiles * Tile::kSplit
                                        : std::min(task.n_tiles, 2 * n_multiprocessors());
  Launch size{static_cast<unsigned>(n_blocks), 1, kThreads, Tile::kSharedBytes};
  size.cluster_blocks = Tile::kSplit;
  launch_overlapping("thin product", thin_linear_sm90_kernel<Tile>, size, stream, task);
}

template <bool kGated>
void launch(const ThinLinear& p, Stream stream) {
  using Whole = Tile<kGated, 1>;
  using Deep = Tile<kGated, 2, 8>;  // a multiprocessor has room for one block of it
  Task task{};
  task.p = p;
  const auto map_of = [&](const void* data, std::int64_t n_rows, int box_rows) {
    return tensor_map(data, {p.n_in, 1, n_rows}, p.n_in, {kBoxColumns, 1, box_rows});
  };
  task.x_map = map_of(p.x, p.n_rows, kRows);
  for (int i = 0; i < p.n_outputs; ++i)
    task.w_maps[i] = map_of(p.outputs[i].w, p.outputs[i].n_out, Whole::kOut);
  // As measured (docs/performance.md): with more blocks than three for two multiprocessors the sums
  // of shares cost more than the blocks bring. A ring of eight stages is worth it where that one
  // block a multiprocessor is all there is, but not with clusters of four, which then wait for each
  // other's multiprocessors.
  const int room = n_multiprocessors() * 3 / 2, n_tiles = n_tiles_of<kGated, Whole::kOut>(p);
  if (4 * n_tiles <= room)
    launch<Tile<kGated, 4>>(task, stream);
  else if (2 * n_tiles <= n_multiprocessors())
    launch<Deep>(task, stream);
  else if (2 * n_tiles <= room)
    launch<Tile<kGated, 2>>(task, stream);
  else
    launch<Whole>(task, stream);
}

}  // namespace

bool takes_thin_sm90(const ThinLinear& p) {
  constexpr std::int64_t kLeastRows = 17;
  return takes_hopper_kernels() && !p.outputs[0].scales && p.n_rows >= kLeastRows &&
         p.n_rows <= kRows && p.n_in % kRun == 0;
}

void thin_linear_sm90(const ThinLinear& p, Stream stream) {
  p.kind == ThinKind::gated ? launch<true>(p, stream) : launch<false>(p, stream);
}

}  // namespace starattn::kernels
