// SPDX-License-Identifier: Apache-2.0
// One thread of a block fetches runs of 128 columns of some matrix rows and of all rows of x
// through the copy engine; a warpgroup for each 64 matrix rows multiplies them (wgmma, the matrix
// as the left operand, which if it is FP8 is widened in registers). As in thin_product.cuh run i
// belongs to share i % 8 of the columns; each share has a sum of its own, and these are added in
// order, so that a row has the bits that it has there. Where tiles are fewer than multiprocessors,
// the blocks of a cluster have some shares of a tile each.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "attention.h"
#include "f8.cuh"
#include "hopper.cuh"
#include "launch.cuh"
#include "tensor_map.h"
#include "thin_linear_sm90.h"
#include "thin_output.cuh"
#include "thin_scales.cuh"

namespace starattn::kernels {
namespace {

constexpr int kShares = kThinShares, kRun = kThinRun;
constexpr int kBoxColumns = 64;  // of the two boxes of a run

struct Task {
  CUtensorMap x_map, w_maps[kMaxThinOutputs];
  ThinLinear p;
  int n_tiles;
};

// kRows: of x; kGroups: warpgroups that multiply; kSplit: blocks of a tile.
template <bool kIsF8_, bool kGated_, int kRows_, int kGroups_, int kSplit_, int kStages_,
          int kBlocks_>
struct Tile {
  static constexpr bool kIsF8 = kIsF8_;
  [[maybe_unused]] static constexpr bool kGated = kGated_;
  static constexpr int kRows = kRows_, kGroups = kGroups_, kSplit = kSplit_, kStages = kStages_;
  static constexpr int kMatrixRows = 64 * kGroups;
  static constexpr int kMultiplying = 128 * kGroups;  // threads
  static constexpr int kThreads = kMultiplying + 32;  // and the warp that fetches
  static constexpr int kBlocks = kBlocks_;            // of a multiprocessor
  static constexpr int kOwnShares = kShares / kSplit;
  // A block that has all shares goes through one after the other, of FP8 through two, since runs of
  // 128 bytes are better fetched in pairs.
  static constexpr int kSharesAtOnce = kIsF8 ? 2 : kSplit == 1 ? 1 : kOwnShares;
  [[maybe_unused]] static constexpr int kOut = kGated ? kMatrixRows / 2 : kMatrixRows;
  static constexpr int kMatrixBytes = kMatrixRows * kRun * (kIsF8 ? 1 : 2);
  static constexpr int kStageBytes = kMatrixBytes + kRows * kRun * 2;
  using Part = float[kRows / 2];  // of [64, kRows] a thread's
  using Sums = float[kRows][kMatrixRows + 1];
  // Sums of several shares, made together, take the place of the stages, which no more tiles need.
  static constexpr bool kInStages = kSplit > 1 && kSharesAtOnce == kOwnShares;
  static constexpr int kSumBytes = kInStages ? 0 : (kSplit == 1 ? 1 : kOwnShares) * sizeof(Sums);
  static constexpr int kSharedBytes = 1024 + kStages * kStageBytes + kSumBytes + 2 * kStages * 8;
  static_assert(kOwnShares % kSharesAtOnce == 0);
  static_assert(!kInStages || kOwnShares * sizeof(Sums) <= kStages * kStageBytes);
};

template <typename Tile>
struct Shared {
  char* stages;
  typename Tile::Sums* sums;
  std::uint64_t *full, *empty;  // of each stage

  __device__ explicit Shared(char* memory) {
    const std::uint32_t address = hopper::shared_address(memory);
    stages = memory + ((address + 1023) / 1024 * 1024 - address);
    char* end = stages + Tile::kStages * Tile::kStageBytes;
    sums = reinterpret_cast<typename Tile::Sums*>(Tile::kSumBytes > 0 ? end : stages);
    full = reinterpret_cast<std::uint64_t*>(end + Tile::kSumBytes);
    empty = full + Tile::kStages;
  }
  __device__ char* w(int stage, int box) const {
    return stages + stage * Tile::kStageBytes + box * (Tile::kMatrixBytes / 2);
  }
  __device__ char* x(int stage, int box) const {
    return stages + stage * Tile::kStageBytes + Tile::kMatrixBytes +
           box * (Tile::kRows * kBoxColumns * 2);
  }
};

// Of this block's.
template <typename Tile>
[[maybe_unused]] __device__ __forceinline__ int first_share() {
  return static_cast<int>(blockIdx.x) % Tile::kSplit * Tile::kOwnShares;
}

// One thread.
template <typename Tile>
[[maybe_unused]] __device__ void fetch(const Task& task, const Shared<Tile>& shared) {
  const int n_runs = static_cast<int>(task.p.n_in) / kRun;
  const auto fetch_w = [&](int tile, int run, int stage) {
    const ThinPlace place = place_of<Tile::kGated, Tile::kOut>(task.p, tile);
    const int row = static_cast<int>(place.first_out);
    std::uint64_t* full = shared.full + stage;
    hopper::barrier_expect(full, Tile::kStageBytes);
    if constexpr (Tile::kIsF8) {
      char* to = shared.w(stage, 0);
      hopper::tma_load(to, &task.w_maps[place.which], full, run * kRun, 0, row);
      if (Tile::kGated)
        hopper::tma_load(to + Tile::kMatrixBytes / 2, &task.w_maps[1], full, run * kRun, 0, row);
    } else {
      for (int box = 0; box < 2; ++box) {
        const int column = run * kRun + box * kBoxColumns;
        hopper::tma_load(shared.w(stage, box), &task.w_maps[place.which], full, column, 0, row);
        if (Tile::kGated)
          hopper::tma_load(shared.w(stage, box) + Tile::kMatrixBytes / 4, &task.w_maps[1], full,
                           column, 0, row);
      }
    }
  };
  const auto fetch_x = [&](int run, int stage) {
    for (int box = 0; box < 2; ++box)
      hopper::tma_load(shared.x(stage, box), &task.x_map, shared.full + stage,
                       run * kRun + box * kBoxColumns, 0, 0);
  };
  // The runs of this block's shares, as multiply_shares() takes them.
  const auto for_each_run = [&](const auto& use) {
    constexpr int kAtOnce = Tile::kSharesAtOnce;
    for (int i = 0; i < Tile::kOwnShares; i += kAtOnce)
      for (int first = first_share<Tile>() + i; first < n_runs; first += kShares)
        for (int run = first; run < min(first + kAtOnce, n_runs); ++run) use(run);
  };
  const int first = static_cast<int>(blockIdx.x) / Tile::kSplit;
  const int stride = static_cast<int>(gridDim.x) / Tile::kSplit;
  // The matrix is on its way before earlier kernels have ended, x is not.
  int n_ahead = 0;
  for_each_run([&](int run) {
    if (n_ahead < Tile::kStages) fetch_w(first, run, n_ahead++);
  });
  await_earlier_kernels();
  hopper::Ring<Tile::kStages> ring;
  int n = 0;
  for (int tile = first; tile < task.n_tiles; tile += stride)
    for_each_run([&](int run) {
      if (n++ >= n_ahead) {
        hopper::barrier_wait(shared.empty + ring.stage, ring.phase ^ 1);
        fetch_w(tile, run, ring.stage);
      }
      fetch_x(run, ring.stage);
      ring.step();
    });
}

// part[64, kRows] += one run's products, of this warpgroup's matrix rows.
template <typename Tile>
[[maybe_unused]] __device__ __forceinline__ void multiply_run(const Shared<Tile>& shared, int stage,
                                                              typename Tile::Part& part) {
  const int first_row = static_cast<int>(threadIdx.x) / 128 * 64;
  hopper::touch(part);
  hopper::wgmma_fence();
#pragma unroll
  for (int box = 0; box < 2; ++box) {
    const std::uint64_t w =
        hopper::tile_descriptor(shared.w(stage, box) + first_row * kBoxColumns * 2, 0);
    const std::uint64_t x = hopper::tile_descriptor(shared.x(stage, box), 0);
#pragma unroll
    for (int i = 0; i < kBoxColumns / 16; ++i) hopper::wgmma_ss(part, w + 2 * i, x + 2 * i, 1);
  }
  hopper::wgmma_commit();
  hopper::wgmma_wait<0>();
  hopper::touch(part);
}

// The scales of a thread's two matrix rows, 8 apart.
template <typename Tile>
struct RowScales {
  RunScales matrix;
  int first[2];

  [[maybe_unused]] __device__ __forceinline__ RowScales(const ThinLinear& p, int tile) {
    const ThinPlace place = place_of<Tile::kGated, Tile::kOut>(p, tile);
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    const bool is_second = Tile::kGated && row >= Tile::kOut;
    if (is_second) row -= Tile::kOut;
    const ThinOutput& of = p.outputs[is_second ? 1 : place.which];
    matrix = RunScales(of, p.n_in);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::int64_t out = place.first_out + row + 8 * i;
      first[i] = out < of.n_out ? matrix.first_of(of.first_row + out) : 0;
    }
  }
  [[maybe_unused]] __device__ __forceinline__ float of(int i, int run) const {
    return matrix.of(first[i], run);
  }
};
struct NoScales {
  [[maybe_unused]] __device__ __forceinline__ NoScales(const ThinLinear&, int) {}
};
template <typename Tile>
using ScalesOf = std::conditional_t<Tile::kIsF8, RowScales<Tile>, NoScales>;

// Half a run of FP8 columns as the left operands of its products.
constexpr int kHalf = kBoxColumns / 16;  // products
using Widened = std::uint32_t[kHalf * 4];

template <typename Tile>
[[maybe_unused]] __device__ __forceinline__ void widen_half(const char* w, int half, Widened& a) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  w += row * kRun + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < kHalf; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {  // of rows `row` and `row` + 8 the first 8 columns, then the last
      const unsigned two = *reinterpret_cast<const std::uint16_t*>(
          w + j % 2 * 8 * kRun + ((kHalf * half + i ^ row % 8) << 4) + j / 2 * 8);
      a[4 * i + j] = widen_low_pair(__byte_perm(two, 0, 0x4140));
    }
}

// sums += one run's products times the scales of their matrix rows.
template <typename Tile>
[[maybe_unused]] __device__ __forceinline__ void multiply_f8_run(const Shared<Tile>& shared,
                                                                 int stage,
                                                                 const float (&scales)[2],
                                                                 typename Tile::Part& sums) {
  Widened a[2];
  typename Tile::Part part;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    widen_half<Tile>(shared.w(stage, 0), half, a[half]);
    hopper::touch(part);
    hopper::touch(a[half]);
    hopper::wgmma_fence();
    const std::uint64_t x = hopper::tile_descriptor(shared.x(stage, half), 0);
#pragma unroll
    for (int i = 0; i < kHalf; ++i)
      hopper::wgmma_rows(part, a[half] + 4 * i, x + 2 * i, half + i > 0);
    hopper::wgmma_commit();
  }
  hopper::wgmma_wait<0>();
  hopper::touch(part);
  hopper::touch(a[0]);
  hopper::touch(a[1]);
#pragma unroll
  for (int i = 0; i < Tile::kRows / 2; ++i) sums[i] = fmaf(scales[i / 2 % 2], part[i], sums[i]);
}

// Where wgmma leaves its sums, which are put there or added.
template <typename Tile, bool kAdds = false>
[[maybe_unused]] __device__ __forceinline__ void put(const typename Tile::Part& from,
                                                     typename Tile::Sums& to) {
  const int lane = threadIdx.x % 32, matrix_row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < Tile::kRows / 2; ++i) {
    float& at = to[i / 4 * 8 + lane % 4 * 2 + i % 2][matrix_row + i / 2 % 2 * 8];
    at = kAdds ? at + from[i] : from[i];
  }
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

// A share of a tile and those behind it, kSharesAtOnce in all, each summed.
template <typename Tile>
[[maybe_unused]] __device__ __forceinline__ void multiply_shares(
    const ThinLinear& p, int tile, const Shared<Tile>& shared, int share,
    hopper::Ring<Tile::kStages>& ring, typename Tile::Part (&parts)[Tile::kSharesAtOnce]) {
  const int n_runs = static_cast<int>(p.n_in) / kRun;
  const ScalesOf<Tile> scales(p, tile);
#pragma unroll
  for (auto& part : parts)
#pragma unroll
    for (float& sum : part) sum = 0;
#pragma unroll 1
  for (int first = share; first < n_runs; first += kShares) {
#pragma unroll
    for (int i = 0; i < Tile::kSharesAtOnce; ++i) {
      if (first + i >= n_runs) continue;
      if constexpr (Tile::kIsF8) {
        const float of_run[] = {scales.of(0, first + i), scales.of(1, first + i)};
        hopper::barrier_wait(shared.full + ring.stage, ring.phase);
        multiply_f8_run(shared, ring.stage, of_run, parts[i]);
      } else {
        hopper::barrier_wait(shared.full + ring.stage, ring.phase);
        multiply_run(shared, ring.stage, parts[i]);
      }
      if (threadIdx.x % 32 == 0) hopper::barrier_arrive(shared.empty + ring.stage);
      ring.step();
    }
  }
}

// A block has all shares of its tiles.
template <typename Tile>
[[maybe_unused]] __device__ void multiply_tiles(const Task& task, const Shared<Tile>& shared) {
  const auto sync = [] { hopper::named_sync(1, Tile::kMultiplying); };
  hopper::Ring<Tile::kStages> ring;
  for (int tile = blockIdx.x; tile < task.n_tiles; tile += gridDim.x) {
    typename Tile::Part parts[Tile::kSharesAtOnce];
#pragma unroll 1
    for (int share = 0; share < kShares; share += Tile::kSharesAtOnce) {
      multiply_shares<Tile>(task.p, tile, shared, share, ring, parts);
      // Those of the tile before are read.
      if (share == 0 && tile != static_cast<int>(blockIdx.x)) sync();
      if (share == 0)
        put<Tile>(parts[0], shared.sums[0]);
      else
        put<Tile, true>(parts[0], shared.sums[0]);
#pragma unroll
      for (int i = 1; i < Tile::kSharesAtOnce; ++i) put<Tile, true>(parts[i], shared.sums[0]);
    }
    sync();
    await_earlier_kernels();
    put_tile<Tile::kGated, Tile::kRows, Tile::kOut>(
        task.p, place_of<Tile::kGated, Tile::kOut>(task.p, tile), threadIdx.x, Tile::kMultiplying,
        [&](int row, int matrix_row) { return shared.sums[0][row][matrix_row]; });
  }
}

// A block has some shares of one tile.
template <typename Tile>
[[maybe_unused]] __device__ void multiply_own_shares(const Task& task, const Shared<Tile>& shared) {
  hopper::Ring<Tile::kStages> ring;
  typename Tile::Part parts[Tile::kSharesAtOnce];
#pragma unroll 1
  for (int share = 0; share < Tile::kOwnShares; share += Tile::kSharesAtOnce) {
    multiply_shares<Tile>(task.p, static_cast<int>(blockIdx.x) / Tile::kSplit, shared,
                          first_share<Tile>() + share, ring, parts);
    // Nobody reads the stages any more.
    if (Tile::kInStages) hopper::named_sync(1, Tile::kMultiplying);
#pragma unroll
    for (int i = 0; i < Tile::kSharesAtOnce; ++i) put<Tile>(parts[i], shared.sums[share + i]);
  }
}
template <typename Tile>
[[maybe_unused]] __device__ void add_shares(const Task& task, const Shared<Tile>& shared) {
  const int tile = static_cast<int>(blockIdx.x) / Tile::kSplit;
  const int block = static_cast<int>(blockIdx.x) % Tile::kSplit;
  await_earlier_kernels();
  put_tile<Tile::kGated, Tile::kRows, Tile::kOut>(
      task.p, place_of<Tile::kGated, Tile::kOut>(task.p, tile),
      block * Tile::kMultiplying + threadIdx.x, Tile::kSplit * Tile::kMultiplying,
      [&](int row, int matrix_row) {
        float sum = 0;
#pragma unroll
        for (int share = 0; share < kShares; ++share)
          sum += of_block(&shared.sums[share % Tile::kOwnShares][row][matrix_row],
                          share / Tile::kOwnShares);
        return sum;
      });
}

template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    thin_linear_sm90_kernel(const __grid_constant__ Task task) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char memory[];
  const Shared<Tile> shared(memory);
  if (threadIdx.x == Tile::kMultiplying) {
    for (int i = 0; i < Tile::kStages; ++i) {
      hopper::barrier_init(shared.full + i, 1);
      hopper::barrier_init(shared.empty + i, Tile::kMultiplying / 32);  // one of each warp
    }
    hopper::barrier_init_done();
  }
  let_next_kernel_start();
  __syncthreads();
  const bool fetches = threadIdx.x >= Tile::kMultiplying;
  if (fetches) {
    if (threadIdx.x == Tile::kMultiplying) fetch<Tile>(task, shared);
    __syncwarp();
    await_earlier_kernels();
  }
  if constexpr (Tile::kSplit == 1) {
    if (!fetches) multiply_tiles<Tile>(task, shared);
  } else {
    if (!fetches) multiply_own_shares<Tile>(task, shared);
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
void launch(const ThinLinear& p, Stream stream) {
  check_cuda(cudaFuncSetAttribute(thin_linear_sm90_kernel<Tile>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             "thin product: shared memory");
  Task task{};
  task.p = p;
  const auto map_of = [&](const void* data, std::int64_t n_rows, int box_rows) {
    return tensor_map(data, {p.n_in, 1, n_rows}, p.n_in, {kBoxColumns, 1, box_rows});
  };
  task.x_map = map_of(p.x, p.n_rows, Tile::kRows);
  for (int i = 0; i < p.n_outputs; ++i)
    task.w_maps[i] =
        Tile::kIsF8 ? byte_map(p.outputs[i].w, p.n_in, p.outputs[i].n_out, p.n_in, kRun, Tile::kOut)
                    : map_of(p.outputs[i].w, p.outputs[i].n_out, Tile::kOut);
  task.n_tiles = n_tiles_of<Tile::kGated, Tile::kOut>(p);
  const int n_blocks = Tile::kSplit > 1
                           ? task.n_tiles * Tile::kSplit
                           : std::min(task.n_tiles, Tile::kBlocks * n_multiprocessors());
  launch_overlapping("thin product", thin_linear_sm90_kernel<Tile>,
                     {.n_blocks = static_cast<unsigned>(n_blocks),
                      .n_threads = Tile::kThreads,
                      .shared_bytes = Tile::kSharedBytes,
                      .cluster_blocks = Tile::kSplit},
                     stream, task);
}

// As measured (docs/performance.md): with more blocks than three for two multiprocessors the sums
// of shares cost more than the blocks bring. A deep ring is worth it where one block a
// multiprocessor is all there is, but not with clusters of four, which then wait for each other's
// multiprocessors. Where rows of x are as many as a tile's matrix rows, two tiles go together, so
// that x is read half as often.
template <bool kGated, int kRows>
void launch_bf16(const ThinLinear& p, Stream stream) {
  constexpr int kStages = kRows == 32 ? 4 : 3, kDeep = kRows == 32 ? 8 : 6;
  using Whole = std::conditional_t<kRows == 32, Tile<false, kGated, kRows, 1, 1, kStages, 2>,
                                   Tile<false, kGated, kRows, 2, 1, 4, 1>>;
  using Halves = Tile<false, kGated, kRows, 1, 2, kStages, 2>;
  const int room = n_multiprocessors() * 3 / 2, n_tiles = n_tiles_of<kGated, Halves::kOut>(p);
  if (4 * n_tiles <= room) return launch<Tile<false, kGated, kRows, 1, 4, kStages, 2>>(p, stream);
  if (2 * n_tiles <= n_multiprocessors())
    return launch<Tile<false, kGated, kRows, 1, 2, kDeep, 2>>(p, stream);
  if (2 * n_tiles <= room) return launch<Halves>(p, stream);
  launch<Whole>(p, stream);
}

// FP8 takes three blocks a multiprocessor, or two, since each of them waits in turns for what it
// widens and for its products.
constexpr int kF8Blocks = 3;  // with 32 rows
template <bool kGated, int kRows>
void launch_f8(const ThinLinear& p, Stream stream) {
  constexpr int kStages = 3, kBlocks = kRows == 32 ? kF8Blocks : 2;
  using Whole = Tile<true, kGated, kRows, 1, 1, kStages, kBlocks>;
  using Halves = Tile<true, kGated, kRows, 1, 2, kStages, kRows == 32 ? 2 : 1>;
  using Quarters = Tile<true, kGated, kRows, 1, 4, kStages, kBlocks>;
  const int room = n_multiprocessors() * kBlocks, n_tiles = n_tiles_of<kGated, Whole::kOut>(p);
  if (4 * n_tiles <= room) return launch<Quarters>(p, stream);
  if (2 * n_tiles <= room) return launch<Halves>(p, stream);
  launch<Whole>(p, stream);
}

template <bool kGated, int kRows>
void launch_fitting(const ThinLinear& p, Stream stream) {
  p.outputs[0].scales ? launch_f8<kGated, kRows>(p, stream) : launch_bf16<kGated, kRows>(p, stream);
}

template <bool kGated>
void launch_fitting(const ThinLinear& p, Stream stream) {
  if (p.n_rows <= 32) return launch_fitting<kGated, 32>(p, stream);
  launch_fitting<kGated, 64>(p, stream);
}

}  // namespace

bool takes_thin_sm90(const ThinLinear& p, std::int64_t n_rows) {
  constexpr std::int64_t kLeastRows = 17;
  if (!takes_hopper_kernels() || n_rows < kLeastRows || n_rows > kMostThinRowsSm90 ||
      p.n_in % kRun != 0)
    return false;
  if (!p.outputs[0].scales || n_rows > kMostThinRows) return true;
  // Shorter FP8 matrices take mma.sync (thin_product.cuh) as long; of longer ones a second round of
  // blocks would leave most multiprocessors idle.
  std::int64_t n_matrix_rows = 0;
  for (int i = 0; i < p.n_outputs; ++i) n_matrix_rows += p.outputs[i].n_out;
  const std::int64_t n_tiles = n_matrix_rows / 64;
  return 2 * n_tiles > n_multiprocessors() && n_tiles <= kF8Blocks * n_multiprocessors();
}

void thin_linear_sm90(const ThinLinear& p, Stream stream) {
  p.kind == ThinKind::gated ? launch_fitting<true>(p, stream) : launch_fitting<false>(p, stream);
}

}  // namespace starattn::kernels
