// SPDX-License-Identifier: Apache-2.0
// What attention_f8.cuh's teams of warps share: tiles and their memory, who takes which unit, and
// how keys and values come.
#pragma once

#include <cuda_bf16.h>

#include "ampere.cuh"
#include "attention_rows.cuh"
#include "f8.cuh"
#include "hopper.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace starattn::kernels {

constexpr int kTeamWarps = 4;  // each with kChunkKeys of a tile
static_assert(kTeamWarps * kChunkKeys == kKeysPerTile, "a warp sums up a chunk");

struct F8Task : AttentionTask {
  CUtensorMap k_maps[kMaxSegments];  // (head_dim columns, 1, kKeysPerTile tokens), bytes
  CUtensorMap v_maps[kMaxSegments];
  int width, row_bytes;  // of a row: bytes before its exponents, and of all
};

// kRowTiles: tiles of 8 packed rows; kTeams: of a block; kSlots: of a team, tiles of K or of V that
// it works on or waits for.
template <int kHeadDim_, int kRowTiles_, int kTeams_, int kSlots_>
struct F8Tile {
  static constexpr int kTeams = kTeams_, kSlots = kSlots_;
  static constexpr int kHeadDim = kHeadDim_, kRowTiles = kRowTiles_;
  static constexpr int kRows = 8 * kRowTiles;
  static constexpr int kChunks = kHeadDim / 16;  // of a row: 16 bytes, and columns of a product
  static constexpr int kOwnChunks = kChunks / kTeamWarps;
  static constexpr int kSlotBytes = kKeysPerTile * kHeadDim;  // a tile of K or of V

  struct Shared {
    uint2 q[kRowTiles][kChunks][32];            // right operands: 16 columns, 8 rows
    uint2 p[kKeysPerTile / 16][kRowTiles][32];  // the same: 16 keys, 8 rows
    float2 sums[kTeamWarps][kRowTiles][32];     // of a chunk's keys lane / 4, + 8, ...
    float max[kTeamWarps][kRows], factors[kRows];
    std::uint64_t full[kSlots];
  };
  static constexpr int kSharedBytes =
      kTeams * (kSlots * kSlotBytes + static_cast<int>(sizeof(Shared))) + 1024;  // alignment
};

// Every warp of this thread's team.
__device__ __forceinline__ void sync_team() {
  hopper::named_sync(1 + threadIdx.x / (32 * kTeamWarps), 32 * kTeamWarps);
}
__device__ __forceinline__ int warp_of_team() {
  return threadIdx.x / 32 % kTeamWarps;
}

// 16 bytes of a key in a slot, as the copy engine's swizzle has them.
template <int kHeadDim>
__device__ __forceinline__ std::uint32_t place_of(std::uint32_t slot, int key, int chunk) {
  const int turned = kHeadDim == 128 ? chunk ^ key % 8 : chunk ^ key / 2 % 4;
  return slot + key * kHeadDim + turned * 16;
}

// The teams' units, in rounds. In a round a block's lie side by side: heads of the same keys, whose
// exponents share sectors.
template <int kTeams>
struct Units {
  int n_units, first = 0;  // of the next round

  __device__ explicit Units(const AttentionTask& task)
      : n_units(task.n_kv_heads * task.n_row_tiles * task.n_splits) {}
  __device__ bool next(const AttentionTask& task, WorkItem& item) {
    if (first >= n_units) return false;
    const int n_blocks = gridDim.x, team = threadIdx.x / (32 * kTeamWarps);
    const int of_block = min(kTeams, (n_units - first + n_blocks - 1) / n_blocks);
    const int index = first + blockIdx.x * of_block + team;
    first += of_block * n_blocks;
    if (team >= of_block || index >= n_units) return false;
    item = WorkList().unit(task, index);
    return true;
  }
};

// Fetches a team's slots in the order in which they are read: of each tile K, then V. By one warp.
template <typename Tile>
struct F8Fetch {
  const F8Task& task;
  char* slots;
  std::uint64_t* full;
  Units<Tile::kTeams> units;
  WorkItem item{};
  KeyWalk<kKeysPerTile> walk;
  int last_row = 0, slot = 0;
  bool is_v = false;

  __device__ F8Fetch(const F8Task& task, char* slots, std::uint64_t* full)
      : task(task), slots(slots), full(full), units(task) {}

  __device__ void next() {
    while (walk.n_left == 0) {
      if (!units.next(task, item)) return;
      last_row = last_row_of(task, item);
      walk = KeyWalk<kKeysPerTile>(task, last_row, item.split);
    }
    if (threadIdx.x % 32 == 0) {
      const CUtensorMap* maps = is_v ? task.v_maps : task.k_maps;
      hopper::barrier_expect(full + slot, Tile::kSlotBytes);
      hopper::tma_load(slots + slot * Tile::kSlotBytes, maps + walk.segment, full + slot,
                       item.kv_head * Tile::kHeadDim, 0, walk.key);
    }
    if (++slot == Tile::kSlots) slot = 0;
    if (is_v) walk.step(task, last_row);
    is_v = !is_v;
  }
};

// --- numbers

__device__ __forceinline__ std::uint32_t f8_to_f16(std::uint32_t two) {
  std::uint32_t wide;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(wide) : "h"(static_cast<unsigned short>(two)));
  return wide;
}

__device__ __forceinline__ float power_of_two(int biased) {
  return __int_as_float(biased << 23);
}

}  // namespace starattn::kernels
