// SPDX-License-Identifier: Apache-2.0
// Producers of attention_sm90.cuh for many rows and FP8 keys (f8_kv.h): a warpgroup for K and one
// for V. Each of their warps has the copy engine bring its own keys of every tile, with the
// exponents that are laid out beside them, and widens them to bf16 for the consumers.
#pragma once

#include "attention_rows.cuh"
#include "attention_sm90_tile.cuh"
#include "f8.cuh"
#include "hopper.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace starattn::kernels {

constexpr int kAllRows = 0;  // FP8 keys are in blocks, of which every row sees all

// A warp's share of tiles that come, kF8Keys of each, and where its fetching has come to.
template <typename Tile>
class F8Fetch {
 public:
  __device__ F8Fetch(const AttentionShared<Tile>& shared, bool is_v) : is_v_(is_v) {
    const int warp = threadIdx.x / 32;
    numbers_ = shared.f8 + warp * Tile::kF8Slots * Tile::kF8Bytes;
    exponents_ = shared.f8_exponents + warp * Tile::kF8Slots * Tile::kF8Keys;
    full_ = shared.f8_full + warp * Tile::kF8Slots;
  }

  __device__ const char* numbers(int slot) const {  // [key][head_dim], in the copies' swizzle
    return numbers_ + slot * Tile::kF8Bytes;
  }
  __device__ const std::uint8_t* exponents(int slot) const {  // [key]
    return exponents_ + slot * Tile::kF8Keys;
  }
  __device__ std::uint64_t* full(int slot) const { return full_ + slot; }

  // Of the next tile to a slot.
  __device__ void next(const HopperTask& task, int slot) {
    while (walk_.n_left == 0) {
      WorkItem item;
      if (!work_.next(task, item)) return;
      kv_head_ = item.kv_head;
      walk_ = KeyWalk<Tile::kKeys>(task, kAllRows, item.split);
    }
    if (threadIdx.x % 32 == 0) {
      const int segment = walk_.segment;
      const int key = walk_.key + threadIdx.x / 32 % 4 * Tile::kF8Keys;
      const int inside = key < task.n_tokens[segment] ? key : 0;
      const std::uint8_t* from =
          task.exponents[segment] +
          (kv_head_ + is_v_ * task.n_kv_heads) * std::int64_t{task.exponents_stride[segment]} +
          inside;
      hopper::barrier_expect(full(slot), Tile::kF8Bytes + Tile::kF8Keys);
      hopper::tma_load(numbers_ + slot * Tile::kF8Bytes,
                       (is_v_ ? task.v_maps : task.k_maps) + segment, full(slot),
                       kv_head_ * Tile::kHeadDim, 0, key);
      hopper::copy_bytes(exponents_ + slot * Tile::kF8Keys, from, Tile::kF8Keys, full(slot));
    }
    walk_.step(task, kAllRows);
  }

 private:
  char* numbers_;
  std::uint8_t* exponents_;
  std::uint64_t* full_;
  WorkList work_;
  KeyWalk<Tile::kKeys> walk_;
  int kv_head_ = 0;
  bool is_v_;
};

// Which numbers of a slot a lane widens: in each of kRuns runs of keys 16 columns of four, key, and
// key ^ 1 to key ^ 3. Lanes that access shared memory together have 64 columns of keys i and i ^ 5,
// which meet in no bank, neither of FP8 numbers nor of bf16. Places are linear in exclusive or.
template <typename Tile>
struct F8Share {
  static constexpr int kParts = Tile::kHeadDim / 16;  // of a key
  static constexpr int kRuns = kParts / 4;
  static constexpr int kRunKeys = Tile::kF8Keys / kRuns;
  unsigned part, key;

  __device__ F8Share() {
    const unsigned lane = threadIdx.x % 32, rest = lane / 8;
    part = lane % 4 + rest % kRuns * 4;
    key = rest / kRuns * 8 + lane / 4 % 2 * 5;
  }

  // In the copy engine's swizzle of rows of kHeadDim bytes.
  static __device__ unsigned place_in_f8(unsigned key, unsigned part) {
    const unsigned turned = Tile::kHeadDim == 128 ? part ^ key % 8 : part ^ key / 2 % 4;
    return key * Tile::kHeadDim + turned * 16;
  }
  // In a tile of bf16, blocks of 64 columns in the 128-byte swizzle. half: 8 columns of a part.
  static __device__ unsigned place_in_bf16(unsigned key, unsigned part, unsigned half) {
    return part / 4 * Tile::kKeys * 128 + key * 128 + ((part % 4 * 2 + half ^ key % 8) << 4);
  }
};

// Fetches K, by the block's first warpgroup, or V, by the second, and widens it to bf16, tile after
// tile. load_queries(item): by one thread, once the first keys of a unit are there.
template <typename Tile, typename LoadQueries>
__device__ void produce_f8(const HopperTask& task, const AttentionShared<Tile>& shared,
                           const LoadQueries& load_queries) {
  using Share = F8Share<Tile>;
  const Share share;
  const bool is_partner = share.key % 4 == 1;  // whose keys come in the order 1, 0, 3, 2
  const bool is_v = threadIdx.x >= 128;
  F8Fetch<Tile> fetch(shared, is_v);
  // In the first slot, and in the first stage. Exclusive or with places changes no carry: slots,
  // and warps' parts of a stage, are aligned to their sizes.
  const std::uint32_t numbers =
      hopper::shared_address(fetch.numbers(0)) + Share::place_in_f8(share.key, share.part);
  const std::uint32_t wide = hopper::shared_address(is_v ? shared.v : shared.k) +
                             threadIdx.x / 32 % 4 * Tile::kF8Keys * 128 +
                             Share::place_in_bf16(share.key, share.part, 0);
  if (!task.are_keys_at_rest) await_earlier_kernels();
  for (int i = 0; i < Tile::kF8Slots; ++i) fetch.next(task, i);

  hopper::Ring<Tile::kF8Slots> slot;
  hopper::Ring<Tile::kStages> ring;
  WorkList work;
  WorkItem item{};
  while (work.next(task, item)) {
    const int n_tiles = KeyWalk<Tile::kKeys>(task, kAllRows, item.split).n_left;
    for (int tile = 0; tile < n_tiles; ++tile) {
      hopper::barrier_wait(fetch.full(slot.stage), slot.phase);
      hopper::barrier_wait((is_v ? shared.v_empty : shared.k_empty) + ring.stage, ring.phase ^ 1);
      const std::uint32_t at = numbers + slot.stage * Tile::kF8Bytes;
      const std::uint32_t wide_at = wide + ring.stage * Tile::kKvBytes;
#pragma unroll
      for (int run = 0; run < Share::kRuns; ++run) {
        uint4 of_keys[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          of_keys[i] = hopper::read_shared((at ^ Share::place_in_f8(i, 0)) +
                                           run * Share::kRunKeys * Tile::kHeadDim);
        unsigned exponents = *reinterpret_cast<const unsigned*>(
            fetch.exponents(slot.stage) + run * Share::kRunKeys + share.key / 4 * 4);
        if (is_partner) exponents = __byte_perm(exponents, 0, 0x2301);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          std::uint32_t pairs[8];
          widen(of_keys[i], exponents >> 8 * i & 0xff, pairs);
#pragma unroll
          for (int half = 0; half < 2; ++half)
            hopper::write_shared(
                (wide_at ^ Share::place_in_bf16(i, 0, half)) + run * Share::kRunKeys * 128,
                {pairs[4 * half], pairs[4 * half + 1], pairs[4 * half + 2], pairs[4 * half + 3]});
        }
      }
      hopper::writes_are_done();
      __syncwarp();
      if (threadIdx.x % 32 == 0)
        hopper::barrier_arrive((is_v ? shared.v_full : shared.k_full) + ring.stage);
      ring.step();
      fetch.next(task, slot.stage);
      slot.step();
      if (tile == 0 && threadIdx.x == 0) load_queries(item);
    }
  }
}

}  // namespace starattn::kernels
