// SPDX-License-Identifier: Apache-2.0
// Producers of attention_sm90.cuh for many rows and FP8 keys (f8_kv.h): a warpgroup that fetches,
// and one that widens, or one for K and one for V. The copy engine takes as long for a row's
// exponent as for its numbers, so threads copy those.
#pragma once

#include "attention_rows.cuh"
#include "f8.cuh"
#include "hopper.cuh"
#include "launch.cuh"

namespace starattn::kernels {

// Slots of half tiles of K or of V.
template <typename Tile, typename Shared, bool kIsV>
struct F8Slots {
  static constexpr int kFirst = kIsV ? Tile::kF8Slots : 0;
  const Shared& shared;

  __device__ char* slot(int i) const { return shared.f8 + (kFirst + i) * Tile::kF8Bytes; }
  __device__ std::uint64_t* full(int i) const { return shared.f8_full + kFirst + i; }
  __device__ std::uint64_t* empty(int i) const { return shared.f8_empty + kFirst + i; }
};

// Fetches half tiles in the order in which consumers take them: a thread a key, the first of which
// has the copy engine bring their numbers.
template <typename Tile, bool kIsV, typename Shared>
__device__ void fetch_f8(const typename Tile::Task& task, const Shared& shared) {
  const F8Slots<Tile, Shared, kIsV> slots{shared};
  const int of_half = threadIdx.x % Tile::kF8Keys;
  const CUtensorMap* const maps = kIsV ? task.v_maps : task.k_maps;
  hopper::Ring<Tile::kF8Slots> ring;
  WorkList work(task);
  WorkItem item{};
  if (!task.are_keys_at_rest) await_earlier_kernels();
  while (work.next(task, item)) {
    const int last_row = last_row_of(task, item);
    KeyWalk<Tile::kKeys> walk(task, last_row, item.split);
    for (; walk.n_left > 0; walk.step(task, last_row)) {
      const void* rows = kIsV ? task.v[walk.segment] : task.k[walk.segment];
      for (int first = walk.key; first < walk.key + Tile::kKeys; first += Tile::kF8Keys) {
        hopper::barrier_wait(slots.empty(ring.stage), ring.phase ^ 1);
        char* const to = slots.slot(ring.stage);
        std::uint64_t* const full = slots.full(ring.stage);
        ring.step();
        if (of_half == 0) {
          hopper::barrier_expect(full, Tile::kF8Keys * Tile::kHeadDim);
          hopper::tma_load(to, maps + walk.segment, full, item.kv_head * Tile::kHeadDim, 0, first);
        }
        const int key = first + of_half;
        const bool inside = key < task.n_tokens[walk.segment];
        const char* row =
            static_cast<const char*>(rows) + (inside ? key : 0) * std::int64_t{task.row_bytes};
        hopper::copy_async(to + Tile::kF8Keys * Tile::kHeadDim + of_half * 4,
                           row + task.width + item.kv_head / 4 * 4, inside, full);
      }
    }
  }
}

// Half a tile of FP8 rows to bf16 in the 128-byte swizzle, by 128 threads: 16 columns each. to: its
// first key.
template <typename Tile>
__device__ __forceinline__ void widen_half(const char* f8, int kv_head, char* to) {
  constexpr int kParts = Tile::kHeadDim / 16;  // of a key
  constexpr int kKeyStep = 128 / kParts;
  constexpr int kTurns = Tile::kF8Keys / kKeyStep;
  const int thread = threadIdx.x % 128;
  const int part = thread % kParts, first_key = thread / kParts;
  uint4 numbers[kTurns];
  unsigned exponents[kTurns];
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    const int key = first_key + i * kKeyStep;
    numbers[i] = *reinterpret_cast<const uint4*>(f8 + key * Tile::kHeadDim + part * 16);
    exponents[i] =
        static_cast<std::uint8_t>(f8[Tile::kF8Keys * Tile::kHeadDim + key * 4 + kv_head % 4]);
  }
  // Lanes whose parts lie 64 columns apart write their halves in turns, so that none meet in a
  // bank.
  const bool second_first = part / 4 == 1;
  to += part / 4 * Tile::kKeys * 128;
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    const int key = first_key + i * kKeyStep;
    std::uint32_t pairs[8];
    widen(numbers[i], exponents[i], pairs);
    const uint4 low{pairs[0], pairs[1], pairs[2], pairs[3]};
    const uint4 high{pairs[4], pairs[5], pairs[6], pairs[7]};
    char* row = to + key * 128;
    const int first = part % 4 * 2 + second_first, second = part % 4 * 2 + !second_first;
    *reinterpret_cast<uint4*>(row + ((first ^ key % 8) << 4)) = second_first ? high : low;
    *reinterpret_cast<uint4*>(row + ((second ^ key % 8) << 4)) = second_first ? low : high;
  }
}

// Where the 128 threads that widen K, or V, have come to.
template <typename Tile, bool kIsV, typename Shared>
class F8Widener {
 public:
  __device__ explicit F8Widener(const Shared& shared) : shared_(shared) {}

  __device__ void widen_tile(int kv_head) {
    const F8Slots<Tile, Shared, kIsV> slots{shared_};
    hopper::barrier_wait((kIsV ? shared_.v_empty : shared_.k_empty) + ring_.stage, ring_.phase ^ 1);
    char* to = (kIsV ? shared_.v : shared_.k) + ring_.stage * Tile::kKvBytes;
    for (int key = 0; key < Tile::kKeys; key += Tile::kF8Keys) {
      hopper::barrier_wait(slots.full(slot_.stage), slot_.phase);
      widen_half<Tile>(slots.slot(slot_.stage), kv_head, to + key * 128);
      __syncwarp();
      if (threadIdx.x % 32 == 0) hopper::barrier_arrive(slots.empty(slot_.stage));
      slot_.step();
    }
    hopper::writes_are_done();
    __syncwarp();
    if (threadIdx.x % 32 == 0)
      hopper::barrier_arrive((kIsV ? shared_.v_full : shared_.k_full) + ring_.stage);
    ring_.step();
  }

 private:
  const Shared& shared_;
  hopper::Ring<Tile::kF8Slots> slot_;
  hopper::Ring<Tile::kStages> ring_;
};

// K, or V, or both in the order in which consumers take them: V a tile behind K.
// load_queries(item): by one thread, once the first keys of a unit are there.
template <typename Tile, bool kHasK, bool kHasV, typename Shared, typename LoadQueries>
__device__ void widen_f8(const typename Tile::Task& task, const Shared& shared,
                         const LoadQueries& load_queries) {
  F8Widener<Tile, false, Shared> k(shared);
  F8Widener<Tile, true, Shared> v(shared);
  WorkList work(task);
  WorkItem item{};
  while (work.next(task, item)) {
    const int n_tiles = KeyWalk<Tile::kKeys>(task, last_row_of(task, item), item.split).n_left;
    for (int i = 0; i < n_tiles; ++i) {
      if (kHasK) k.widen_tile(item.kv_head);
      if (kHasK && i == 0 && threadIdx.x % 128 == 0) load_queries(item);
      if (kHasV && (!kHasK || i > 0)) v.widen_tile(item.kv_head);
    }
    if (kHasV && kHasK && n_tiles > 0) v.widen_tile(item.kv_head);
  }
}

}  // namespace starattn::kernels
