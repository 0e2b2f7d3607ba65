// SPDX-License-Identifier: Apache-2.0
// Attention with mma.sync, after FlashAttention-2 (arXiv 2307.08691). Persistent blocks of four
// warps, two or more on a multiprocessor so that the softmax of one runs under the products of
// another. A warp owns 16 or 32 packed query rows; all warps share the K and V tiles, which
// cp.async brings kStages tiles ahead.
//
// A tile's rows are (token, head of the group) pairs: row = token * group + head.
#pragma once

#include "ampere.cuh"
#include "attention_rows.cuh"

namespace starattn::kernels {

template <int kHeadDim_, int kKeys_, int kStages_, int kStrips_>
struct AmpereTile {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kKeys = kKeys_;      // keys of a tile
  static constexpr int kStages = kStages_;  // K tiles and V tiles in shared memory
  static constexpr int kStrips = kStrips_;  // strips of 16 rows of a warp
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kWarpRows = 16 * kStrips;
  static constexpr int kRows = kWarpRows * kWarps;
  static constexpr int kRowBytes = kHeadDim * 2;
  static constexpr int kQBytes = kRows * kRowBytes;
  static constexpr int kKvBytes = kKeys * kRowBytes;
  static constexpr int kSharedBytes = kQBytes + 2 * kStages * kKvBytes;
  static constexpr bool kHasEdges = false;  // WithEdges
};

template <typename Tile>
using WalkOf = KeyWalk<Tile::kKeys, Tile::kHasEdges>;

// --- copies: a row is kHeadDim / 8 chunks of 16 bytes; chunk c of row r lies at place c ^ (r % 8),
// so that 8 rows of one chunk are in different banks
// -------------------------------------------------

// Calls copy(row, chunk's column, where it goes) for this thread's share of n_rows rows.
template <typename Tile, int kRows, typename Copy>
__device__ __forceinline__ void for_each_chunk(std::uint32_t to, const Copy& copy) {
  constexpr int kChunks = Tile::kHeadDim / 8;
  constexpr int kRowStep = Tile::kThreads / kChunks;  // a multiple of 8: the place stays the same
  static_assert(kRowStep % 8 == 0 && kRows % kRowStep == 0);
  const int chunk = threadIdx.x % kChunks, row = threadIdx.x / kChunks;
  to += row * Tile::kRowBytes + ((chunk ^ (row % 8)) << 4);
#pragma unroll
  for (int i = 0; i < kRows / kRowStep; ++i)
    copy(row + i * kRowStep, 8 * chunk, to + i * kRowStep * Tile::kRowBytes);
}

template <typename Tile>
__device__ __forceinline__ void load_q(const AttentionTask& task, const WorkItem& item,
                                       std::uint32_t to) {
  const auto* q = static_cast<const __nv_bfloat16*>(task.q);
  const int first_row = first_row_of(task, item),
            n = min(task.tokens_per_tile, task.n_rows - first_row);
  for_each_chunk<Tile, Tile::kRows>(to, [&](int packed, int column, std::uint32_t place) {
    const int token = packed / task.group;
    const int head = item.kv_head * task.group + packed % task.group;
    const std::int64_t at =
        (first_row + token) * task.q_row_stride + head * Tile::kHeadDim + column;
    ampere::copy_async(place, q + (token < n ? at : 0), token < n);
  });
}

// The tile of `data` (K or V of the walk's segment) where the walk stands; the walk goes on.
template <typename Tile>
__device__ __forceinline__ void load_kv(const AttentionTask& task, const void* const* data,
                                        const WorkItem& item, int last_row, WalkOf<Tile>& walk,
                                        std::uint32_t to) {
  if (walk.n_left > 0) {
    const int n = task.n_tokens[walk.segment] - walk.key;
    const std::int64_t stride = static_cast<std::int64_t>(task.n_kv_heads) * Tile::kHeadDim;
    const auto* from = static_cast<const __nv_bfloat16*>(data[walk.segment]) + walk.key * stride +
                       item.kv_head * Tile::kHeadDim;
    for_each_chunk<Tile, Tile::kKeys>(to, [&](int row, int column, std::uint32_t place) {
      ampere::copy_async(place, from + (row < n ? row * stride + column : 0), row < n);
    });
    walk.step(task, last_row);
  }
  ampere::copy_commit();  // an empty group where no tile is left: waiting counts groups
}

// --- products

// s[strip][16, kKeys] = q[16, d] k[kKeys, d]^T; q: this warp's first row.
template <typename Tile, int kSize>
__device__ __forceinline__ void multiply_qk(float (&s)[Tile::kStrips][kSize], std::uint32_t q,
                                            std::uint32_t k) {
  const int lane = threadIdx.x % 32;
  q += lane % 16 * Tile::kRowBytes;
  k += (lane % 8 + lane / 16 * 8) * Tile::kRowBytes;
  const int q_place = (lane / 16) ^ (lane % 8), k_place = (lane / 8 % 2) ^ (lane % 8);
#pragma unroll
  for (int m = 0; m < Tile::kStrips; ++m)
#pragma unroll
    for (float& x : s[m]) x = 0;
#pragma unroll
  for (int c = 0; c < Tile::kHeadDim / 16; ++c) {  // 16 columns: two chunks
    std::uint32_t a[Tile::kStrips][4];
#pragma unroll
    for (int m = 0; m < Tile::kStrips; ++m)
      ampere::load_matrices(a[m], q + m * 16 * Tile::kRowBytes + ((q_place ^ 2 * c) << 4));
#pragma unroll
    for (int n = 0; n < Tile::kKeys / 16; ++n) {
      std::uint32_t b[4];
      ampere::load_matrices(b, k + n * 16 * Tile::kRowBytes + ((k_place ^ 2 * c) << 4));
#pragma unroll
      for (int m = 0; m < Tile::kStrips; ++m) {
        ampere::multiply_add(s[m] + 8 * n, a[m], b[0], b[1]);
        ampere::multiply_add(s[m] + 8 * n + 4, a[m], b[2], b[3]);
      }
    }
  }
}

// o[strip][16, d] += p[16, kKeys] v[kKeys, d]
template <typename Tile, int kSize, int kOperands>
__device__ __forceinline__ void multiply_pv(float (&o)[Tile::kStrips][kSize],
                                            const std::uint32_t (&p)[Tile::kStrips][kOperands],
                                            std::uint32_t v) {
  const int lane = threadIdx.x % 32;
  v += lane % 16 * Tile::kRowBytes;
  const int place = (lane / 16) ^ (lane % 8);
#pragma unroll
  for (int k = 0; k < Tile::kKeys / 16; ++k)
#pragma unroll
    for (int n = 0; n < Tile::kHeadDim / 16; ++n) {
      std::uint32_t b[4];
      ampere::load_transposed(b, v + k * 16 * Tile::kRowBytes + ((place ^ 2 * n) << 4));
#pragma unroll
      for (int m = 0; m < Tile::kStrips; ++m) {
        ampere::multiply_add(o[m] + 8 * n, p[m] + 4 * k, b[0], b[1]);
        ampere::multiply_add(o[m] + 8 * n + 4, p[m] + 4 * k, b[2], b[3]);
      }
    }
}

// --- one unit of work: a tile of rows against its keys

template <typename Tile>
__device__ __forceinline__ void attend_unit(const AttentionTask& task, const WorkItem& item,
                                            std::uint32_t memory) {
  constexpr int kStages = Tile::kStages;
  constexpr int kPending = 2 * kStages - 2;  // groups of copies that may follow the one awaited
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * Tile::kWarpRows;
  const int tile_row = warp_row + lane / 4;
  const int first_row = first_row_of(task, item), last_row = last_row_of(task, item);
  const int lowest_row = first_row + warp_row / task.group;
  const int highest_row = first_row + (warp_row + Tile::kWarpRows - 1) / task.group;
  const bool idle = lowest_row > last_row;  // this warp has no rows: it only copies
  const float scale_log2 = task.scale * 1.44269504088896341f;
  const std::uint32_t k_tiles = memory + Tile::kQBytes;
  const std::uint32_t v_tiles = k_tiles + kStages * Tile::kKvBytes;

  float o[Tile::kStrips][Tile::kHeadDim / 2];
  RowState rows[Tile::kStrips];
#pragma unroll
  for (int m = 0; m < Tile::kStrips; ++m)
#pragma unroll
    for (float& x : o[m]) x = 0;

  WalkOf<Tile> walk(task, last_row, item.split, first_row);
  WalkOf<Tile> k_walk = walk, v_walk = walk;
  auto load_k = [&](int stage) {
    load_kv<Tile>(task, task.k, item, last_row, k_walk, k_tiles + stage * Tile::kKvBytes);
  };
  auto load_v = [&](int stage) {
    load_kv<Tile>(task, task.v, item, last_row, v_walk, v_tiles + stage * Tile::kKvBytes);
  };

  // Groups of copies: K 0 (with Q), V 0, K 1, V 1, ...
  __syncthreads();  // the unit before has been read
  if (walk.n_left > 0) load_q<Tile>(task, item, memory);
#pragma unroll
  for (int i = 0; i < kStages; ++i) {
    load_k(i);
    if (i + 1 < kStages) load_v(i);
  }

  int stage = 0;
  while (walk.n_left > 0) {
    ampere::copy_wait<kPending>();
    __syncthreads();                          // K is here; the V tile before has been read
    load_v((stage + kStages - 1) % kStages);  // kStages - 1 tiles ahead

    float s[Tile::kStrips][Tile::kKeys / 2];
    if (!idle) {
      multiply_qk<Tile>(s, memory + warp_row * Tile::kRowBytes, k_tiles + stage * Tile::kKvBytes);
      if (walk.key + Tile::kKeys > walk.limit(task, lowest_row)) {
        const int start = walk.key + 2 * (lane % 4);
#pragma unroll
        for (int m = 0; m < Tile::kStrips; ++m) {
          const int row = tile_row + 16 * m;
          const int limit[2] = {walk.limit(task, first_row + row / task.group) - start,
                                walk.limit(task, first_row + (row + 8) / task.group) - start};
          mask(s[m], limit);
        }
      }
      if (Tile::kHasEdges && walk.key < walk.edge(task, highest_row)) {
        const int start = walk.key + 2 * (lane % 4);
#pragma unroll
        for (int m = 0; m < Tile::kStrips; ++m) {
          const int row = tile_row + 16 * m;
          const int edge[2] = {walk.edge(task, first_row + row / task.group) - start,
                               walk.edge(task, first_row + (row + 8) / task.group) - start};
          mask_front(s[m], edge);
        }
      }
    }

    ampere::copy_wait<kPending>();
    __syncthreads();  // V is here; the K tile has been read
    load_k(stage);    // kStages tiles ahead

    if (!idle) {
      std::uint32_t p[Tile::kStrips][Tile::kKeys / 4];
#pragma unroll
      for (int m = 0; m < Tile::kStrips; ++m) {
        float rescale[2];
        softmax_step(s[m], rows[m], rescale, scale_log2);
        rescale_rows(o[m], rescale);
        to_operand(s[m], p[m]);
      }
      multiply_pv<Tile>(o, p, v_tiles + stage * Tile::kKvBytes);
    }
    stage = (stage + 1) % kStages;
    walk.step(task, last_row);
  }
  if (idle) return;
#pragma unroll
  for (int m = 0; m < Tile::kStrips; ++m) {
    total_sums(rows[m]);
    write_rows(task, item, first_row, tile_row + 16 * m, o[m], rows[m]);
  }
}

template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, 2)
    attention_sm80_kernel(const __grid_constant__ AttentionTask task) {
  extern __shared__ __align__(128) char memory[];
  WorkList work;
  WorkItem item;
  while (work.next(task, item)) attend_unit<Tile>(task, item, ampere::shared_address(memory));
}

}  // namespace starattn::kernels
