// SPDX-License-Identifier: Apache-2.0
// A persistent kernel: one warp fetches tiles of x and w through the copy engine, two warpgroups
// multiply. Their tensor cores keep few bits of a sum, so that what 128 columns sum to is moved on
// to sums in fp32 (arXiv 2412.19437, section 3.3.2), while the other warpgroup multiplies.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "cuda_check.h"
#include "f8_linear_sm90.h"
#include "hopper.cuh"
#include "tensor_map.h"

namespace starattn::kernels {
namespace {

constexpr int kStep = 128;      // columns whose products the tensor cores add up
constexpr int kTileOut = 128;   // rows of w that a block works on
constexpr int kBoxRows = 128;   // of a tile: two boxes of rows of x, one of w
constexpr int kTileRows = 256;  // rows of x
constexpr int kStages = 4;
constexpr int kGroups = 2;  // warpgroups that multiply: 64 rows of each box a group
constexpr int kThreads = 128 * (1 + kGroups);
constexpr int kBoxBytes = kBoxRows * kStep;
constexpr int kStageBytes = 3 * kBoxBytes;
constexpr int kColumnBytes = kGroups * kTileOut * sizeof(float2);
constexpr int kSharedBytes = 1024 + kStages * kStageBytes + kColumnBytes + 2 * kStages * 8;
constexpr int kBundle = 8;  // tiles of rows that are worked on together, which L2 holds

struct Task {
  CUtensorMap x_map, w_map;
  const float* x_scales;
  const float* w_scales;
  const __nv_bfloat16* bias;
  __nv_bfloat16* y;
  int n_rows, n_out, n_in;
  int block_rows;       // of w that share a scale
  int first_row;        // of w, in its first block
  int steps_per_block;  // columns of w that share a scale, in steps
  int blocks_per_row;   // of scales
  bool add;

  __host__ __device__ int n_row_tiles() const { return (n_rows + kTileRows - 1) / kTileRows; }
  __host__ __device__ int n_out_tiles() const { return (n_out + kTileOut - 1) / kTileOut; }
  __host__ __device__ int n_tiles() const { return n_row_tiles() * n_out_tiles(); }
  __device__ int n_steps() const { return (n_in + kStep - 1) / kStep; }
};

// Where tile number `tile` begins.
struct Place {
  int first_row, first_out;
};
__device__ Place place_of(const Task& task, int tile) {
  const int a_bundle = kBundle * task.n_out_tiles();
  const int first = tile / a_bundle * kBundle;
  const int n = min(kBundle, task.n_row_tiles() - first);
  const int within = tile % a_bundle;
  return {(first + within % n) * kTileRows, within / n * kTileOut};
}

struct Shared {
  char* stages;
  float2* columns;      // of each group: [kTileOut], scale and bias
  std::uint64_t* full;  // of each stage
  std::uint64_t* empty;

  __device__ explicit Shared(char* memory) {
    const std::uint32_t address = hopper::shared_address(memory);
    stages = memory + ((address + 1023) / 1024 * 1024 - address);
    columns = reinterpret_cast<float2*>(stages + kStages * kStageBytes);
    full = reinterpret_cast<std::uint64_t*>(columns + kGroups * kTileOut);
    empty = full + kStages;
  }
  __device__ char* x(int stage, int box) const {
    return stages + stage * kStageBytes + box * kBoxBytes;
  }
  __device__ char* w(int stage) const { return x(stage, 2); }
};

// One thread. (Older devices compile a kernel that uses nothing of this.)
[[maybe_unused]] __device__ void fetch(const Task& task, const Shared& shared) {
  hopper::Ring<kStages> ring;
  for (int tile = blockIdx.x; tile < task.n_tiles(); tile += gridDim.x) {
    const Place place = place_of(task, tile);
    for (int step = 0; step < task.n_steps(); ++step, ring.step()) {
      hopper::barrier_wait(shared.empty + ring.stage, ring.phase ^ 1);
      std::uint64_t* full = shared.full + ring.stage;
      hopper::barrier_expect(full, kStageBytes);
      hopper::tma_load(shared.w(ring.stage), &task.w_map, full, step * kStep, 0, place.first_out);
      for (int box = 0; box < 2; ++box)
        hopper::tma_load(shared.x(ring.stage, box), &task.x_map, full, step * kStep, 0,
                         place.first_row + box * kBoxRows);
    }
  }
}

// sums[box] += scale * what 128 columns give for this group's 64 rows of the box.
[[maybe_unused]] __device__ __forceinline__ void multiply_step(const Shared& shared, int stage,
                                                               int group, float scale,
                                                               float (&sums)[2][64]) {
  const std::uint64_t w = hopper::tile_descriptor(shared.w(stage), 0);
#pragma unroll
  for (int box = 0; box < 2; ++box) {
    const std::uint64_t x = hopper::tile_descriptor(shared.x(stage, box) + group * 64 * kStep, 0);
    float part[64];
    hopper::touch(part);
    hopper::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kStep / 32; ++i) hopper::wgmma_f8(part, x + 2 * i, w + 2 * i, i > 0);
    hopper::wgmma_commit();
    hopper::wgmma_wait<0>();
    hopper::touch(part);
    if (box == 1 && threadIdx.x % 32 == 0) hopper::barrier_arrive(shared.empty + stage);
#pragma unroll
    for (int i = 0; i < 64; ++i) sums[box][i] = fmaf(scale, part[i], sums[box][i]);
  }
}

// Where a thread's accumulators lie (wgmma): columns 8 j + 2 (lane % 4) and the next of rows
// lane / 4 and 8 below it, of each of 16 rows of its warp.
struct MyRows {
  std::int64_t row[4];  // two of each box
  float scale[4];       // 0 beyond the last row

  __device__ MyRows(const Task& task, const Place& place, int group) {
    const int first = place.first_row + group * 64 + threadIdx.x / 32 % 4 * 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      row[i] = first + threadIdx.x % 32 / 4 + i / 2 * kBoxRows + i % 2 * 8;
      scale[i] = row[i] < task.n_rows ? __ldg(task.x_scales + row[i]) : 0.f;
    }
  }
};

// Scale and bias of the tile's columns, one a thread of the group. kHasBlocks: scales are in the
// sums.
template <bool kHasBlocks>
__device__ __forceinline__ float2 column_of(const Task& task, const Place& place) {
  const int out = place.first_out + threadIdx.x % kTileOut;
  if (out >= task.n_out) return {};
  const unsigned row = task.first_row + out;
  return {kHasBlocks ? 1.f : __ldg(task.w_scales + row / task.block_rows),
          task.bias ? __bfloat162float(task.bias[out]) : 0.f};
}

// Neighbouring lanes exchange numbers, so that each has 4 columns beside each other: those of
// column 8 j with even lanes, of 8 (j + 1) with odd ones.
__device__ __forceinline__ float4 four_columns(const float* left, const float* right) {
  const bool is_odd = threadIdx.x % 2 == 1;
  const float2 mine = is_odd ? float2{right[0], right[1]} : float2{left[0], left[1]};
  const float2 theirs = is_odd ? float2{left[0], left[1]} : float2{right[0], right[1]};
  const float2 got{__shfl_xor_sync(0xffffffff, theirs.x, 1),
                   __shfl_xor_sync(0xffffffff, theirs.y, 1)};
  return is_odd ? float4{got.x, got.y, mine.x, mine.y} : float4{mine.x, mine.y, got.x, got.y};
}

__device__ __forceinline__ float2 unpack(std::uint32_t pair) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
}
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

[[maybe_unused]] __device__ __forceinline__ void write(const Task& task, const Place& place,
                                                       const MyRows& rows, const float2* columns,
                                                       const float (&sums)[2][64]) {
  const int lane = threadIdx.x % 4;
  const int column = lane % 2 * 8 + lane / 2 * 4;
#pragma unroll
  for (int j = 0; j < kTileOut / 8; j += 2) {
    const int at = 8 * j + column;
    const bool is_inside = place.first_out + at < task.n_out;
    const auto* pairs = reinterpret_cast<const float4*>(columns + at);
    const float4 first = pairs[0], second = pairs[1];  // scale and bias of two columns each
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* sum = sums[i / 2] + 4 * j + 2 * (i % 2);
      float4 y = four_columns(sum, sum + 4);
      if (!is_inside || rows.row[i] >= task.n_rows) continue;
      y.x = fmaf(y.x * first.x, rows.scale[i], first.y);
      y.y = fmaf(y.y * first.z, rows.scale[i], first.w);
      y.z = fmaf(y.z * second.x, rows.scale[i], second.y);
      y.w = fmaf(y.w * second.z, rows.scale[i], second.w);
      auto* to = reinterpret_cast<uint2*>(task.y + rows.row[i] * task.n_out + place.first_out + at);
      if (task.add) {
        const uint2 before = *to;
        const float2 low = unpack(before.x), high = unpack(before.y);
        y = {y.x + low.x, y.y + low.y, y.z + high.x, y.w + high.y};
      }
      *to = {pack(y.x, y.y), pack(y.z, y.w)};
    }
  }
}

template <bool kHasBlocks>
__device__ void multiply(const Task& task, const Shared& shared, int group) {
  float2* columns = shared.columns + group * kTileOut;
  hopper::Ring<kStages> ring;
  for (int tile = blockIdx.x; tile < task.n_tiles(); tile += gridDim.x) {
    const Place place = place_of(task, tile);
    // What the end of the tile needs is loaded before its products.
    const MyRows rows(task, place, group);
    hopper::named_sync(1 + group, 128);  // the tile before has been written
    columns[threadIdx.x % 128] = column_of<kHasBlocks>(task, place);
    const float* scales =
        task.w_scales + (task.first_row + place.first_out) / task.block_rows * task.blocks_per_row;
    float next = kHasBlocks ? __ldg(scales) : 1.f;
    float sums[2][64] = {};
    for (int step = 0; step < task.n_steps(); ++step, ring.step()) {
      const float scale = next;
      if (kHasBlocks && step + 1 < task.n_steps())
        next = __ldg(scales + (step + 1) / task.steps_per_block);
      hopper::barrier_wait(shared.full + ring.stage, ring.phase);
      multiply_step(shared, ring.stage, group, scale, sums);
    }
    hopper::named_sync(1 + group, 128);
    write(task, place, rows, columns, sums);
  }
}

template <bool kHasBlocks>
__global__ void __launch_bounds__(kThreads, 1) f8_linear_kernel(const __grid_constant__ Task task) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char memory[];
  const Shared shared(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::barrier_init(shared.full + i, 1);
      hopper::barrier_init(shared.empty + i, kGroups * 4);  // one of each warp
    }
    hopper::barrier_init_done();
    hopper::prefetch_map(&task.x_map);
    hopper::prefetch_map(&task.w_map);
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    hopper::give_registers<40>();
    if (threadIdx.x == 0) fetch(task, shared);
    __syncwarp();
  } else {
    hopper::take_registers<232>();
    multiply<kHasBlocks>(task, shared, static_cast<int>(threadIdx.x) / 128 - 1);
  }
#else
  asm volatile("trap;");  // takes_f8_linear() keeps everybody from here
#endif
}

template <bool kHasBlocks>
void launch(const Task& task, Stream stream) {
  check_cuda(cudaFuncSetAttribute(f8_linear_kernel<kHasBlocks>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
             "FP8 product: shared memory");
  static const int n_blocks =
      device_attribute(cudaDevAttrMultiProcessorCount, "FP8 product: multiprocessors");
  f8_linear_kernel<kHasBlocks>
      <<<std::min(n_blocks, task.n_tiles()), kThreads, kSharedBytes, stream>>>(task);
  check_launch("FP8 product");
}

}  // namespace

void f8_linear_sm90(const F8Linear& p, Stream stream) {
  Task task{};
  task.x_map = byte_map(p.x.values, p.x.width, p.x.n_rows, p.x.width, kStep, kBoxRows);
  task.w_map = byte_map(p.w.values, p.w.n_cols, p.w.n_rows, p.w.n_cols, kStep, kBoxRows);
  task.x_scales = p.x.scales;
  task.w_scales = p.w.scales;
  task.bias = static_cast<const __nv_bfloat16*>(p.bias);
  task.y = static_cast<__nv_bfloat16*>(p.y);
  task.n_rows = static_cast<int>(p.x.n_rows);
  task.n_out = static_cast<int>(p.w.n_rows);
  task.n_in = static_cast<int>(p.w.n_cols);
  const std::int64_t n_all_rows = p.w.first_row + p.w.n_rows;
  task.block_rows = static_cast<int>(std::min(p.w.block_rows, n_all_rows + 1));
  task.first_row = static_cast<int>(p.w.first_row);
  task.blocks_per_row = static_cast<int>((p.w.n_cols + p.w.block_cols - 1) / p.w.block_cols);
  task.steps_per_block = static_cast<int>(std::max<std::int64_t>(1, p.w.block_cols / kStep));
  task.add = p.add;
  if (p.w.block_cols < p.w.n_cols)
    launch<true>(task, stream);
  else
    launch<false>(task, stream);
}

}  // namespace starattn::kernels
