// SPDX-License-Identifier: Apache-2.0
// What the warpgroups of attention_sm90.cuh share: the task, a tile's sizes, and its memory.
#pragma once

#include <cuda.h>

#include "attention_work.h"
#include "hopper.cuh"

namespace starattn::kernels {

// FP8 keys have their exponents laid out; the maps are of their bytes.
struct HopperTask : AttentionTask {
  CUtensorMap q_map;                 // (64 columns, heads, rows)
  CUtensorMap k_maps[kMaxSegments];  // (64 columns, kv heads, tokens)
  CUtensorMap v_maps[kMaxSegments];
};

template <int kHeadDim_, int kKeys_, int kStages_, int kConsumers_, bool kAreSplits_ = false,
          bool kInPairs_ = false, int kF8Slots_ = 0>
struct AttentionTile {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kKeys = kKeys_;             // keys of a tile
  static constexpr int kStages = kStages_;         // K tiles and V tiles in flight
  static constexpr int kConsumers = kConsumers_;   // warpgroups of 64 rows
  static constexpr bool kAreSplits = kAreSplits_;  // of phase 2
  static constexpr bool kInPairs = kInPairs_;      // KeyCut::in_pairs
  static constexpr int kF8Slots = kF8Slots_;       // FP8 tiles in flight; 0: K and V are bf16
  static constexpr bool kIsF8 = kF8Slots > 0;
  static constexpr bool kHasEdges = false;  // WithEdges
  static constexpr int kRows = 64 * kConsumers;
  static constexpr int kProducers = kIsF8 ? 2 : 1;  // warpgroups
  static constexpr int kThreads = 128 * (kProducers + kConsumers);
  static constexpr int kColumnBlocks = kHeadDim / 64;  // a TMA box is 64 columns: 128 bytes wide
  static constexpr int kQBytes = kRows * kHeadDim * 2;
  static constexpr int kKvBytes = kKeys * kHeadDim * 2;
  static constexpr int kAsideBytes = kInPairs ? kRows * kHeadDim * 4 : 0;
  static constexpr int kF8Keys = kKeys / 4;  // of a slot: a warp's of a tile
  static constexpr int kF8Bytes = kF8Keys * kHeadDim;
  static constexpr int kF8Warps = kIsF8 ? 8 : 0;  // 4 of K, then 4 of V
  static constexpr int kSharedBytes = kQBytes + 2 * kStages * kKvBytes + kAsideBytes +
                                      kF8Warps * kF8Slots * (kF8Bytes + kF8Keys) + 1024 + 512;
};

template <typename Tile>
using WalkOf = KeyWalk<Tile::kKeys, Tile::kHasEdges>;

template <typename Tile>
struct AttentionShared {
  char* q;  // [column block][row][64], 128-byte swizzle
  char* k;  // [stage][column block][key][64]
  char* v;
  float* aside;                // [head_dim / 2][consumer thread]: its o of a pair's first split
  char* f8;                    // [warp][slot][key][head_dim]
  std::uint8_t* f8_exponents;  // [warp][slot][key]
  std::uint64_t *q_full, *q_empty, *k_full, *k_empty, *v_full, *v_empty;
  std::uint64_t* f8_full;  // [warp][slot]

  __device__ explicit AttentionShared(char* memory) {
    q = memory + (-hopper::shared_address(memory) & 1023);
    k = q + Tile::kQBytes;
    v = k + Tile::kStages * Tile::kKvBytes;
    aside = reinterpret_cast<float*>(v + Tile::kStages * Tile::kKvBytes);
    f8 = v + Tile::kStages * Tile::kKvBytes + Tile::kAsideBytes;
    f8_exponents =
        reinterpret_cast<std::uint8_t*>(f8 + Tile::kF8Warps * Tile::kF8Slots * Tile::kF8Bytes);
    q_full = reinterpret_cast<std::uint64_t*>(f8_exponents +
                                              Tile::kF8Warps * Tile::kF8Slots * Tile::kF8Keys);
    q_empty = q_full + 1;
    k_full = q_full + 2;
    k_empty = k_full + Tile::kStages;
    v_full = k_empty + Tile::kStages;
    v_empty = v_full + Tile::kStages;
    f8_full = v_empty + Tile::kStages;
  }

  __device__ void init() {
    hopper::barrier_init(q_full, 1);
    hopper::barrier_init(q_empty, Tile::kConsumers);
    constexpr int kWriters = Tile::kIsF8 ? 4 : 1;  // warps that fill a stage, or the copy engine
    for (int i = 0; i < Tile::kF8Warps * Tile::kF8Slots; ++i) hopper::barrier_init(f8_full + i, 1);
    for (int i = 0; i < Tile::kStages; ++i) {
      hopper::barrier_init(k_full + i, kWriters);
      hopper::barrier_init(v_full + i, kWriters);
      hopper::barrier_init(k_empty + i, Tile::kConsumers);
      hopper::barrier_init(v_empty + i, Tile::kConsumers);
    }
    hopper::barrier_init_done();
  }
};

}  // namespace starattn::kernels
