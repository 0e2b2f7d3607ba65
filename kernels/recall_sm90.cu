// SPDX-License-Identifier: Apache-2.0
// Q K^T without softmax and P V, on Hopper: one warp streams tiles of 128 rows in by TMA, two
// warpgroups hold 64 rows each of what stays (asking rows for their log-sum-exp, keys for their
// scores) and reduce each product in registers while the other one's runs.
#include <cuda.h>

#include <algorithm>

#include "attention_softmax.cuh"
#include "cuda_check.h"
#include "hopper.cuh"
#include "recall_sm90.h"
#include "tensor_map.h"

namespace starattn::kernels {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kHighest = 80;
constexpr int kTile = 128;  // rows of every tile
constexpr int kConsumers = 2;
constexpr int kThreads = 128 * (kConsumers + 1);
constexpr int kStages = 4;  // streamed tiles in flight

template <int kHeadDim>
struct Shared {
  static constexpr int kTileBytes = kTile * kHeadDim * 2;
  static constexpr int kBytes = (kStages + 2) * kTileBytes + 1024 + 256;
  char* held;      // [2][column block][row][64], 128-byte swizzle
  char* streamed;  // [stage] as above
  std::uint64_t *held_full, *held_empty, *full, *empty;

  __device__ explicit Shared(char* memory) {
    held = memory + (-hopper::shared_address(memory) & 1023);
    streamed = held + 2 * kTileBytes;
    held_full = reinterpret_cast<std::uint64_t*>(streamed + kStages * kTileBytes);
    held_empty = held_full + 2;
    full = held_empty + 2;
    empty = full + kStages;
  }
  __device__ void init() {
    for (int i = 0; i < 2; ++i) {
      hopper::barrier_init(held_full + i, 1);
      hopper::barrier_init(held_empty + i, kConsumers);
    }
    for (int i = 0; i < kStages; ++i) {
      hopper::barrier_init(full + i, 1);
      hopper::barrier_init(empty + i, kConsumers);
    }
    hopper::barrier_init_done();
  }
};

// A place in a ring of buffers, and the phase of its barriers.
template <int kSize>
struct RingPlace {
  int at = 0, phase = 0;
  __device__ void step() {
    if (++at == kSize) {
      at = 0;
      phase ^= 1;
    }
  }
};

template <int kHeadDim>
__device__ void load_tile(char* to, const CUtensorMap& map, std::uint64_t* full, int head,
                          int row) {
  hopper::barrier_expect(full, Shared<kHeadDim>::kTileBytes);
#pragma unroll
  for (int c = 0; c < kHeadDim / 64; ++c)
    hopper::tma_load(to + c * kTile * 128, &map, full, c * 64, head, row);
}

// s[64, 128] = held[64, d] streamed[128, d]^T
template <int kHeadDim>
__device__ __forceinline__ void multiply(float (&s)[kTile / 2], const char* held,
                                         const char* streamed) {
  const std::uint64_t a = hopper::tile_descriptor(held, 16);
  const std::uint64_t b = hopper::tile_descriptor(streamed, 16);
  hopper::touch(s);
  hopper::wgmma_fence();
#pragma unroll
  for (int i = 0; i < kHeadDim / 16; ++i) {
    const int offset = (i / 4) * kTile * 128 + (i % 4) * 32;
    hopper::wgmma_ss(s, a + (offset >> 4), b + (offset >> 4), i > 0);
  }
  hopper::wgmma_commit();
}

__device__ __forceinline__ void release(std::uint64_t* empty) {
  if (threadIdx.x % 128 == 0) hopper::barrier_arrive(empty);
}

// --- scores: keys are held, asking rows streamed, head after head

struct ScoreTask {
  CUtensorMap k_map, q_map;
  int n_keys, n_rows, n_heads, group;
  float scale_log2;
  const float* own;  // [n_heads, n_padded]
  int n_padded;
  float* scores;
};

template <int kHeadDim>
__device__ void produce(const ScoreTask& task, const Shared<kHeadDim>& shared) {
  RingPlace<2> held;
  RingPlace<kStages> stream;
  const int n_kv_heads = task.n_heads / task.group;
  for (int kv_head = 0; kv_head < n_kv_heads; ++kv_head) {
    hopper::barrier_wait(shared.held_empty + held.at, held.phase ^ 1);
    load_tile<kHeadDim>(shared.held + held.at * Shared<kHeadDim>::kTileBytes, task.k_map,
                        shared.held_full + held.at, kv_head, blockIdx.x * kTile);
    held.step();
    for (int head = kv_head * task.group; head < (kv_head + 1) * task.group; ++head)
      for (int row = 0; row < task.n_rows; row += kTile) {
        hopper::barrier_wait(shared.empty + stream.at, stream.phase ^ 1);
        load_tile<kHeadDim>(shared.streamed + stream.at * Shared<kHeadDim>::kTileBytes, task.q_map,
                            shared.full + stream.at, head, row);
        stream.step();
      }
  }
}

template <int kHeadDim>
__device__ void consume(const ScoreTask& task, const Shared<kHeadDim>& shared) {
  const int warpgroup = threadIdx.x / 128 - 1;
  const int lane = threadIdx.x % 32;
  const int key = blockIdx.x * kTile + warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  RingPlace<2> held;
  RingPlace<kStages> stream;
  float total[2] = {0, 0};
  const int n_kv_heads = task.n_heads / task.group;
  for (int kv_head = 0; kv_head < n_kv_heads; ++kv_head) {
    hopper::barrier_wait(shared.held_full + held.at, held.phase);
    const char* keys = shared.held + held.at * Shared<kHeadDim>::kTileBytes + warpgroup * 64 * 128;
    for (int head = kv_head * task.group; head < (kv_head + 1) * task.group; ++head) {
      float best[2] = {-INFINITY, -INFINITY};
      const float* own = task.own + static_cast<std::int64_t>(head) * task.n_padded;
      for (int row = 0; row < task.n_rows; row += kTile) {
        float s[kTile / 2];
        hopper::barrier_wait(shared.full + stream.at, stream.phase);
        multiply<kHeadDim>(s, keys, shared.streamed + stream.at * Shared<kHeadDim>::kTileBytes);
        float2 minus_z[kTile / 8];
#pragma unroll
        for (int i = 0; i < kTile / 8; ++i)
          minus_z[i] = *reinterpret_cast<const float2*>(own + row + 8 * i + 2 * (lane % 4));
        hopper::wgmma_wait<0>();
        hopper::touch(s);
        release(shared.empty + stream.at);
        stream.step();
#pragma unroll
        for (int i = 0; i < kTile / 8; ++i) {
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            best[r] = fmaxf(best[r], fmaf(s[4 * i + 2 * r], task.scale_log2, minus_z[i].x));
            best[r] = fmaxf(best[r], fmaf(s[4 * i + 2 * r + 1], task.scale_log2, minus_z[i].y));
          }
        }
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        best[r] = fmaxf(best[r], __shfl_xor_sync(0xffffffff, best[r], 1));
        best[r] = fmaxf(best[r], __shfl_xor_sync(0xffffffff, best[r], 2));
        total[r] += exp2f(fminf(best[r], kHighest * kLog2E));
      }
    }
    release(shared.held_empty + held.at);
    held.step();
  }
  if (lane % 4 != 0) return;
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (key + 8 * r < task.n_keys)
      task.scores[key + 8 * r] = total[r] / static_cast<float>(task.n_heads);
}

// --- log-sum-exp: a head's asking rows are held, keys streamed

struct SumTask {
  CUtensorMap q_map, k_maps[2];
  int n_keys[2];
  int n_rows, n_heads, group;
  float scale_log2;
  float* z;  // [n_rows, n_heads]
};

// A tile of keys never crosses from one segment to the other.
struct SumUnit {
  int head, first_row, n_first_tiles, n_tiles;
  __device__ explicit SumUnit(const SumTask& task)
      : head(blockIdx.x % task.n_heads),
        first_row(blockIdx.x / task.n_heads * kTile),
        n_first_tiles((task.n_keys[0] + kTile - 1) / kTile),
        n_tiles(n_first_tiles + (task.n_keys[1] + kTile - 1) / kTile) {}
};

template <int kHeadDim>
__device__ void produce(const SumTask& task, const Shared<kHeadDim>& shared) {
  const SumUnit unit(task);
  RingPlace<kStages> stream;
  load_tile<kHeadDim>(shared.held, task.q_map, shared.held_full, unit.head, unit.first_row);
  for (int tile = 0; tile < unit.n_tiles; ++tile) {
    const bool is_second = tile >= unit.n_first_tiles;
    hopper::barrier_wait(shared.empty + stream.at, stream.phase ^ 1);
    load_tile<kHeadDim>(shared.streamed + stream.at * Shared<kHeadDim>::kTileBytes,
                        task.k_maps[is_second], shared.full + stream.at, unit.head / task.group,
                        (is_second ? tile - unit.n_first_tiles : tile) * kTile);
    stream.step();
  }
}

template <int kHeadDim>
__device__ void consume(const SumTask& task, const Shared<kHeadDim>& shared) {
  const SumUnit unit(task);
  const int warpgroup = threadIdx.x / 128 - 1;
  const int lane = threadIdx.x % 32;
  const int row = unit.first_row + warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const char* q = shared.held + warpgroup * 64 * 128;
  RingPlace<kStages> stream;
  RowState rows;
  float rescale[2];
  hopper::barrier_wait(shared.held_full, 0);
  for (int tile = 0; tile < unit.n_tiles; ++tile) {
    float s[kTile / 2];
    hopper::barrier_wait(shared.full + stream.at, stream.phase);
    multiply<kHeadDim>(s, q, shared.streamed + stream.at * Shared<kHeadDim>::kTileBytes);
    hopper::wgmma_wait<0>();
    hopper::touch(s);
    release(shared.empty + stream.at);
    stream.step();
    const bool is_second = tile >= unit.n_first_tiles;
    const int n_left =
        task.n_keys[is_second] - (is_second ? tile - unit.n_first_tiles : tile) * kTile;
    if (n_left < kTile) {
      const int limit[2] = {n_left - 2 * (lane % 4), n_left - 2 * (lane % 4)};
      mask(s, limit);
    }
    softmax_step(s, rows, rescale, task.scale_log2);
  }
  total_sums(rows);
  if (lane % 4 != 0) return;
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (row + 8 * r < task.n_rows)
      task.z[static_cast<std::int64_t>(row + 8 * r) * task.n_heads + unit.head] =
          rows.max[r] * (task.scale_log2 / kLog2E) + logf(rows.sum[r]);
}

// --- both

template <int kHeadDim, typename Task>
__global__ void __launch_bounds__(kThreads, 1) stream_tiles(const __grid_constant__ Task task) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char memory[];
  Shared<kHeadDim> shared(memory);
  if (threadIdx.x == 0) shared.init();
  __syncthreads();
  if (threadIdx.x < 128) {
    if (threadIdx.x == 0) produce<kHeadDim>(task, shared);
  } else {
    consume<kHeadDim>(task, shared);
  }
#else
  asm volatile("trap;");
#endif
}

// --- the host's side

constexpr TensorBox kBox{64, 1, kTile};

CUtensorMap map_of_rows(const AskingRows& asking) {
  const AttentionShape& shape = asking.shape;
  return tensor_map(asking.q, {shape.head_dim, shape.n_heads, asking.n_rows},
                    static_cast<std::int64_t>(shape.n_heads) * shape.head_dim, kBox);
}
CUtensorMap map_of_keys(const AttentionShape& shape, const KvSegment& keys) {
  return tensor_map(keys.k, {shape.head_dim, shape.n_kv_heads, keys.n_tokens},
                    static_cast<std::int64_t>(shape.n_kv_heads) * shape.head_dim, kBox);
}

template <int kHeadDim, typename Task>
void launch(std::int64_t n_blocks, const Task& task, Stream stream, const char* what) {
  const auto kernel = stream_tiles<kHeadDim, Task>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  Shared<kHeadDim>::kBytes),
             what);
  kernel<<<static_cast<unsigned>(n_blocks), kThreads, Shared<kHeadDim>::kBytes, stream>>>(task);
  check_launch(what);
}

template <typename Task>
void launch(const AttentionShape& shape, std::int64_t n_blocks, const Task& task, Stream stream,
            const char* what) {
  if (shape.head_dim == 64)
    launch<64>(n_blocks, task, stream, what);
  else
    launch<128>(n_blocks, task, stream, what);
}

}  // namespace

void log_sum_exp_sm90(const AskingRows& asking, const KvSegment& first, const KvSegment& second,
                      float* z, Stream stream) {
  const AttentionShape& shape = asking.shape;
  SumTask task{};
  task.q_map = map_of_rows(asking);
  const KvSegment* segments[] = {&first, &second};
  for (int i = 0; i < 2; ++i) {
    task.n_keys[i] = static_cast<int>(segments[i]->n_tokens);
    if (task.n_keys[i] > 0) task.k_maps[i] = map_of_keys(shape, *segments[i]);
  }
  task.n_rows = static_cast<int>(asking.n_rows);
  task.n_heads = shape.n_heads;
  task.group = shape.n_heads / shape.n_kv_heads;
  task.scale_log2 = asking.scale * kLog2E;
  task.z = z;
  const std::int64_t n_blocks = padded_rows(asking.n_rows) / kTile * shape.n_heads;
  launch(shape, n_blocks, task, stream, "recall: log-sum-exp");
}

void score_keys_sm90(const AskingRows& asking, const float* own, const KvSegment& keys,
                     float* scores, Stream stream) {
  const AttentionShape& shape = asking.shape;
  ScoreTask task{};
  task.k_map = map_of_keys(shape, keys);
  task.q_map = map_of_rows(asking);
  task.n_keys = static_cast<int>(keys.n_tokens);
  task.n_rows = static_cast<int>(asking.n_rows);
  task.n_heads = shape.n_heads;
  task.group = shape.n_heads / shape.n_kv_heads;
  task.scale_log2 = asking.scale * kLog2E;
  task.own = own;
  task.n_padded = static_cast<int>(padded_rows(asking.n_rows));
  task.scores = scores;
  const std::int64_t n_blocks = (keys.n_tokens + kTile - 1) / kTile;
  launch(shape, n_blocks, task, stream, "recall: scores");
}

}  // namespace starattn::kernels
