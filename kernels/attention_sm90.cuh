// SPDX-License-Identifier: Apache-2.0
// Attention on Hopper, after FlashAttention-3 (arXiv 2407.08608). One persistent block per
// multiprocessor: a producer warp streams K and V tiles in by TMA, or the warps of
// attention_f8_tiles.cuh widen them; one to three consumer warpgroups of 64 packed query rows
// multiply (wgmma) in turns, so that the softmax of one runs under the products of the others, and
// each starts Q K^T of the next tile before P V of the last.
//
// A tile's rows are (token, head of the group) pairs: row = token * group + head.
#pragma once

#include "attention_f8_tiles.cuh"
#include "attention_rows.cuh"
#include "attention_sm90_tile.cuh"
#include "hopper.cuh"
#include "launch.cuh"
#include "merging.cuh"

namespace starattn::kernels {

// --- producers: a thread each

template <typename Tile>
__device__ void load_kv(const CUtensorMap& map, char* to, std::uint64_t* full, int head, int key) {
  hopper::barrier_expect(full, Tile::kKvBytes);
#pragma unroll
  for (int c = 0; c < Tile::kColumnBlocks; ++c)
    hopper::tma_load(to + c * Tile::kKeys * 128, &map, full, c * 64, head, key);
}

template <typename Tile>
__device__ void load_queries(const HopperTask& task, const AttentionShared<Tile>& shared,
                             const WorkItem& item, hopper::Ring<1>& q_ring) {
  hopper::barrier_wait(shared.q_empty, q_ring.phase ^ 1);
  q_ring.step();
  hopper::barrier_expect(shared.q_full,
                         Tile::kColumnBlocks * task.tokens_per_tile * task.group * 128);
#pragma unroll
  for (int c = 0; c < Tile::kColumnBlocks; ++c)
    hopper::tma_load(shared.q + c * Tile::kRows * 128, &task.q_map, shared.q_full, c * 64,
                     item.kv_head * task.group, first_row_of(task, item));
}

template <typename Tile>
__device__ void produce_queries(const HopperTask& task, const AttentionShared<Tile>& shared) {
  hopper::Ring<1> q_ring;
  WorkList work;
  WorkItem item;
  while (work.next(task, item)) {
    const WalkOf<Tile> walk(task, last_row_of(task, item), item.split, first_row_of(task, item));
    if (walk.n_left == 0) continue;
    await_earlier_kernels();
    load_queries(task, shared, item, q_ring);
  }
}

template <typename Tile>
__device__ void produce_keys(const HopperTask& task, const AttentionShared<Tile>& shared) {
  hopper::Ring<Tile::kStages> k_ring, v_ring;
  WorkList work;
  WorkItem item;
  while (work.next(task, item)) {
    const int last_row = last_row_of(task, item);
    WalkOf<Tile> walk(task, last_row, item.split, first_row_of(task, item));
    if (walk.n_left == 0) continue;
    if (!task.are_keys_at_rest) await_earlier_kernels();

    auto load_k = [&] {
      hopper::barrier_wait(shared.k_empty + k_ring.stage, k_ring.phase ^ 1);
      load_kv<Tile>(task.k_maps[walk.segment], shared.k + k_ring.stage * Tile::kKvBytes,
                    shared.k_full + k_ring.stage, item.kv_head, walk.key);
      k_ring.step();
    };
    auto load_v = [&](int segment, int key) {
      hopper::barrier_wait(shared.v_empty + v_ring.stage, v_ring.phase ^ 1);
      load_kv<Tile>(task.v_maps[segment], shared.v + v_ring.stage * Tile::kKvBytes,
                    shared.v_full + v_ring.stage, item.kv_head, key);
      v_ring.step();
    };
    load_k();
    while (walk.n_left > 1) {  // V follows one tile behind K, as it is used
      const int segment = walk.segment, key = walk.key;
      walk.step(task, last_row);
      load_k();
      load_v(segment, key);
    }
    load_v(walk.segment, walk.key);
  }
}

// --- consumers: a warpgroup each

// Begins s[64, kKeys] = q[64, d] k[kKeys, d]^T, k in a stage of its ring.
template <typename Tile, int kSize>
__device__ __forceinline__ void begin_qk(float (&s)[kSize], const char* q, const char* k,
                                         int stage) {
  hopper::touch(s);
  hopper::wgmma_fence();
  k += stage * Tile::kKvBytes;
  const std::uint64_t q_desc = hopper::tile_descriptor(q, 16);
  const std::uint64_t k_desc = hopper::tile_descriptor(k, 16);
#pragma unroll
  for (int i = 0; i < Tile::kHeadDim / 16; ++i) {  // 16 columns: 32 bytes inside the swizzled row
    const int q_offset = (i / 4) * Tile::kRows * 128 + (i % 4) * 32;
    const int k_offset = (i / 4) * Tile::kKeys * 128 + (i % 4) * 32;
    hopper::wgmma_ss(s, q_desc + (q_offset >> 4), k_desc + (k_offset >> 4), i > 0);
  }
  hopper::wgmma_commit();
}

// Begins o[64, d] += p[64, kKeys] v[kKeys, d], v in a stage of its ring.
template <typename Tile, int kSize, int kOperands>
__device__ __forceinline__ void begin_pv(float (&o)[kSize], std::uint32_t (&p)[kOperands],
                                         const char* v, int stage) {
  hopper::touch(o);
  hopper::touch(p);
  hopper::wgmma_fence();
  v += stage * Tile::kKvBytes;
  const std::uint64_t v_desc = hopper::tile_descriptor(v, Tile::kKeys * 128);
#pragma unroll
  for (int i = 0; i < Tile::kKeys / 16; ++i)  // 16 keys: 16 rows of 128 bytes
    hopper::wgmma_rs(o, p + 4 * i, v_desc + (i * 2048 >> 4), 1);
  hopper::wgmma_commit();
}

// One arrival a warpgroup.
__device__ __forceinline__ void release(std::uint64_t* empty) {
  if (threadIdx.x % 128 == 0) hopper::barrier_arrive(empty);
}

// The first split of a pair makes room for the second.
template <typename Tile, int kSize>
__device__ void put_aside(float* aside, float (&o)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    aside[i * 128 * Tile::kConsumers] = o[i];
    o[i] = 0;
  }
}

// o and rows, of the second split, become the pair's.
template <typename Tile, int kSize>
__device__ void merge_first(const float* aside, const RowState& first, float scale,
                            float (&o)[kSize], RowState& rows) {
  float weight_a[2], weight_b[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float top = fmaxf(first.max[r], rows.max[r]);
    weight_a[r] = merge_weight(__fmul_rn(first.max[r], scale), __fmul_rn(top, scale));
    weight_b[r] = merge_weight(__fmul_rn(rows.max[r], scale), __fmul_rn(top, scale));
    rows.max[r] = top;
    rows.sum[r] = merged(first.sum[r], weight_a[r], rows.sum[r], weight_b[r]);
  }
#pragma unroll
  for (int i = 0; i < kSize; ++i)
    o[i] =
        merged(aside[i * 128 * Tile::kConsumers], weight_a[i / 2 % 2], o[i], weight_b[i / 2 % 2]);
}

template <typename Tile>
__device__ void consume(const HopperTask& task, const AttentionShared<Tile>& shared) {
  const int group_index = threadIdx.x / 128 - Tile::kProducers;
  const int lane = threadIdx.x % 32;
  const int tile_row = group_index * 64 + (threadIdx.x % 128) / 32 * 16 + lane / 4;
  const float scale_log2 = task.scale * 1.44269504088896341f;
  const char* q = shared.q + group_index * 64 * 128;
  float* const aside = shared.aside + threadIdx.x - 128 * Tile::kProducers;
  // Named barriers 1, 2: this warpgroup may issue its products. The first one begins.
  auto my_turn = [&] {
    if constexpr (Tile::kConsumers > 1) hopper::named_sync(1 + group_index, 256);
  };
  auto next_turn = [&] {
    if constexpr (Tile::kConsumers > 1)
      hopper::named_arrive(1 + (group_index + 1) % Tile::kConsumers, 256);
  };
  if (group_index == Tile::kConsumers - 1) next_turn();

  hopper::Ring<Tile::kStages> k_ring, v_ring;
  hopper::Ring<1> q_ring;
  WorkList work;
  WorkItem item;
  while (work.next(task, item)) {
    const int last_row = last_row_of(task, item);
    const int first_row = first_row_of(task, item);
    const int my_row[2] = {first_row + tile_row / task.group,
                           first_row + (tile_row + 8) / task.group};
    const int lowest_row = first_row + group_index * 64 / task.group;
    const int highest_row = first_row + (group_index * 64 + 63) / task.group;
    WalkOf<Tile> walk(task, last_row, item.split, first_row);

    float o[Tile::kHeadDim / 2];
    float s[Tile::kKeys / 2];
    std::uint32_t p[Tile::kKeys / 4];
    RowState rows, first_rows;
    float rescale[2];
    const bool is_pair = Tile::kInPairs && walk.n_left_at_second > 0;
    await_earlier_kernels();
#pragma unroll
    for (float& x : o) x = 0;
    if (walk.n_left == 0) {
      write_rows(task, item, first_row, tile_row, o, rows);
      continue;
    }

    auto scores_to_p = [&] {
      if (walk.key + Tile::kKeys > walk.limit(task, lowest_row)) {
        const int start = walk.key + 2 * (lane % 4);
        const int limit[2] = {walk.limit(task, my_row[0]) - start,
                              walk.limit(task, my_row[1]) - start};
        mask(s, limit);
      }
      if (Tile::kHasEdges && walk.key < walk.edge(task, highest_row)) {
        const int start = walk.key + 2 * (lane % 4);
        const int edge[2] = {walk.edge(task, my_row[0]) - start,
                             walk.edge(task, my_row[1]) - start};
        mask_front(s, edge);
      }
      softmax_step<Tile::kAreSplits>(s, rows, rescale, scale_log2);
    };

    hopper::barrier_wait(shared.q_full, q_ring.phase);
    hopper::barrier_wait(shared.k_full + k_ring.stage, k_ring.phase);
    begin_qk<Tile>(s, q, shared.k, k_ring.stage);
    hopper::wgmma_wait<0>();
    hopper::touch(s);
    release(shared.k_empty + k_ring.stage);
    k_ring.step();
    scores_to_p();
    to_operand(s, p);

    while (walk.n_left > 1) {
      walk.step(task, last_row);
      const bool second_begins = is_pair && walk.n_left == walk.n_left_at_second;
      hopper::barrier_wait(shared.k_full + k_ring.stage, k_ring.phase);
      my_turn();
      begin_qk<Tile>(s, q, shared.k, k_ring.stage);
      hopper::barrier_wait(shared.v_full + v_ring.stage, v_ring.phase);
      begin_pv<Tile>(o, p, shared.v, v_ring.stage);
      next_turn();
      hopper::wgmma_wait<1>();
      hopper::touch(s);
      release(shared.k_empty + k_ring.stage);
      k_ring.step();
      if (second_begins) {
        first_rows = rows;
        rows = {};
      }
      scores_to_p();
      hopper::wgmma_wait<0>();
      hopper::touch(o);
      hopper::touch(p);
      release(shared.v_empty + v_ring.stage);
      v_ring.step();
      to_operand(s, p);
      if (second_begins)
        put_aside<Tile>(aside, o);
      else
        rescale_rows(o, rescale);
    }
    release(shared.q_empty);
    q_ring.step();

    hopper::barrier_wait(shared.v_full + v_ring.stage, v_ring.phase);
    begin_pv<Tile>(o, p, shared.v, v_ring.stage);
    hopper::wgmma_wait<0>();
    hopper::touch(o);
    release(shared.v_empty + v_ring.stage);
    v_ring.step();
    total_sums(rows);
    if (is_pair) {
      total_sums(first_rows);
      merge_first<Tile>(aside, first_rows, task.scale, o, rows);
    }
    write_rows(task, item, first_row, tile_row, o, rows);
  }
}

template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    attention_sm90_kernel(const __grid_constant__ HopperTask task) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char memory[];
  const AttentionShared<Tile> shared(memory);
  if (threadIdx.x == 0) {
    const_cast<AttentionShared<Tile>&>(shared).init();
    hopper::prefetch_map(&task.q_map);
    hopper::prefetch_map(&task.k_maps[0]);
    hopper::prefetch_map(&task.v_maps[0]);
  }
  __syncthreads();
  let_next_kernel_start();
  // Earlier kernels are awaited where a thread has worked out its first unit, and not by those that
  // fetch keys at rest.
  constexpr bool kMovesRegisters = Tile::kConsumers > 1 || Tile::kIsF8;
  // Producers that widen beside two consumers get as many as these can spare.
  constexpr bool kAreTwo = Tile::kConsumers == 2;
  constexpr int kOfProducer = Tile::kIsF8 ? kAreTwo ? 64 : 120 : kAreTwo ? 40 : 32;
  constexpr int kOfConsumer = Tile::kIsF8 ? kAreTwo ? 192 : 232 : kAreTwo ? 232 : 160;
  if (threadIdx.x < 128 * Tile::kProducers) {
    if constexpr (kMovesRegisters) hopper::give_registers<kOfProducer>();
    if constexpr (Tile::kIsF8) {
      hopper::Ring<1> q_ring;
      const auto load_queries_of = [&](const WorkItem& item) {
        await_earlier_kernels();
        load_queries(task, shared, item, q_ring);
      };
      produce_f8<Tile>(task, shared, load_queries_of);
    } else {
      if (threadIdx.x == 0) produce_keys<Tile>(task, shared);
      if (threadIdx.x == 32) produce_queries<Tile>(task, shared);
    }
    __syncwarp();
  } else {
    if constexpr (kMovesRegisters) hopper::take_registers<kOfConsumer>();
    consume<Tile>(task, shared);
  }
  await_earlier_kernels();
#else
  asm volatile("trap;");  // takes_hopper_kernels() keeps everybody from here
#endif
}

}  // namespace starattn::kernels
