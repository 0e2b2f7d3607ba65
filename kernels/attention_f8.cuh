// SPDX-License-Identifier: Apache-2.0
// Attention to FP8 keys in phase 2: bound by reading them, and by widening them next. A team of
// four warps takes a unit (kv head, row tile, split). Its keys and values come through a ring of
// tiles by TMA; ldmatrix gives each lane the FP8 numbers of an mma.sync fragment, which are widened
// in registers, keys as the left operand: scores s[key, row] = k q^T, then o[column, row] += v^T
// p^T. Of a tile each warp has a quarter of the keys for the first product and of the columns for
// the second; in between maxima and probabilities pass through shared memory.
//
// Scales never touch the numbers: a key's multiplies its scores, a value's its probabilities, both
// powers of two, which round nothing. k and q are multiplied as f16, since FP8 becomes f16 in one
// instruction: a row of q is brought to f16's range by a power of two (what is under 2^-32 of its
// largest may be rounded).
//
// The order of every sum is attention_sm90.cuh's, and so are the bits: tiles of kKeysPerTile keys,
// 16 of a product, a row's probabilities added up by key % 8 and in chunks of kChunkKeys.
#pragma once

#include <cuda_bf16.h>

#include "ampere.cuh"
#include "attention_f8_team.cuh"
#include "attention_rows.cuh"
#include "hopper.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace starattn::kernels {

// --- what a warp knows

template <typename Tile>
struct F8State {
  float o[Tile::kOwnChunks][Tile::kRowTiles][4];  // [16 columns][8 rows]
  // Of rows 2 * (lane % 4) and one more of each tile: the maximum of scores before `factors`; in
  // the team's first warp the sum of two classes of keys; what scores are multiplied with.
  float max[Tile::kRowTiles][2], sum[Tile::kRowTiles][2], factors[Tile::kRowTiles][2];
};

// Queries of a unit as right operands, by the whole team: of each tile of 8 rows a lane has row
// lane / 4, and of each 16 columns the four from 4 * (lane % 4) on.
template <typename Tile>
__device__ void load_queries(const F8Task& task, const WorkItem& item,
                             typename Tile::Shared& shared) {
  const int lane = threadIdx.x % 32;
  for (int t = warp_of_team(); t < Tile::kRowTiles; t += kTeamWarps) {
    const int packed = 8 * t + lane / 4;
    const int token = packed / task.group, row = first_row_of(task, item) + token;
    const bool is_row = token < task.tokens_per_tile && row < task.n_rows;
    const int head = item.kv_head * task.group + packed % task.group;
    const auto* from = static_cast<const __nv_bfloat16*>(task.q) +
                       (is_row ? row : 0) * task.q_row_stride +
                       (is_row ? head : 0) * Tile::kHeadDim + lane % 4 * 4;
    uint2 four[Tile::kChunks];
    std::uint32_t largest = 0;  // magnitude's bits
#pragma unroll
    for (int i = 0; i < Tile::kChunks; ++i)
      four[i] = is_row ? *reinterpret_cast<const uint2*>(from + 16 * i) : uint2{};
#pragma unroll
    for (int i = 0; i < Tile::kChunks; ++i)
#pragma unroll
      for (const std::uint32_t two : {four[i].x, four[i].y})
        largest = max(largest, max(two & 0x7fffu, two >> 16 & 0x7fffu));
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const int exponent = max(static_cast<int>(largest >> 7), 15);
    const float up = power_of_two(268 - exponent);  // the largest becomes 2^14 or more
    const auto to_f16 = [&](std::uint32_t two) {
      std::uint32_t narrow;
      asm("cvt.rn.f16x2.f32 %0, %1, %2;"
          : "=r"(narrow)
          : "f"(__uint_as_float(two & 0xffff0000u) * up), "f"(__uint_as_float(two << 16) * up));
      return narrow;
    };
#pragma unroll
    for (int i = 0; i < Tile::kChunks; ++i)
      shared.q[t][i][lane] = {to_f16(four[i].x), to_f16(four[i].y)};
    if (lane % 4 == 0) shared.factors[packed] = power_of_two(exponent - 14);
  }
}

// s[key, row] of this warp's keys: two strips of 16.
template <typename Tile>
__device__ __forceinline__ void multiply_keys(float (&s)[2][Tile::kRowTiles][4], std::uint32_t slot,
                                              const typename Tile::Shared& shared) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < Tile::kChunks; i += 2) {
    std::uint32_t x[2][4];  // keys 0 to 7 and 8 to 15 of a chunk, then of the next
#pragma unroll
    for (int strip = 0; strip < 2; ++strip)
      ampere::load_matrices(
          x[strip], place_of<Tile::kHeadDim>(
                        slot, warp_of_team() * kChunkKeys + strip * 16 + lane % 16, i + lane / 16));
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      std::uint32_t a[2][4];
#pragma unroll
      for (int strip = 0; strip < 2; ++strip) {
        const std::uint32_t low = x[strip][2 * j], high = x[strip][2 * j + 1];
        a[strip][0] = f8_to_f16(low), a[strip][1] = f8_to_f16(high);
        a[strip][2] = f8_to_f16(low >> 16), a[strip][3] = f8_to_f16(high >> 16);
      }
#pragma unroll
      for (int t = 0; t < Tile::kRowTiles; ++t) {
        const uint2 b = shared.q[t][i + j][lane];
        ampere::multiply_add_f16(s[0][t], a[0], b.x, b.y);
        ampere::multiply_add_f16(s[1][t], a[1], b.x, b.y);
      }
    }
  }
}

// o[column, row] += v p: this warp's columns, all keys of the tile.
template <typename Tile>
__device__ __forceinline__ void multiply_values(F8State<Tile>& state, std::uint32_t slot,
                                                const typename Tile::Shared& shared) {
  constexpr int kStrips = 2 / Tile::kOwnChunks;  // of 16 keys, whose numbers come together
  const int lane = threadIdx.x % 32;
  const int chunk = warp_of_team() * Tile::kOwnChunks + (kStrips == 1 ? lane / 16 : 0);
#pragma unroll
  for (int strip = 0; strip < kKeysPerTile / 16; strip += kStrips) {
    std::uint32_t x[4];  // of two keys two columns a lane
    ampere::load_transposed(
        x, place_of<Tile::kHeadDim>(slot, strip * 16 + lane % (16 * kStrips), chunk));
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const std::uint32_t a[] = {even_bytes(x[2 * j]), odd_bytes(x[2 * j]),
                                 even_bytes(x[2 * j + 1]), odd_bytes(x[2 * j + 1])};
#pragma unroll
      for (int t = 0; t < Tile::kRowTiles; ++t) {
        const uint2 b = shared.p[strip + (kStrips == 2 ? j : 0)][t][lane];
        ampere::multiply_add(state.o[kStrips == 2 ? 0 : j][t], a, b.x, b.y);
      }
    }
  }
}

// The exponents of a warp's keys and values, a key a lane. They are on their way while the tile
// before is worked on.
struct Exponents {
  unsigned k = 0, v = 0;

  __device__ __forceinline__ void load(const F8Task& task, int segment, int first_key, int head) {
    const int key = first_key + warp_of_team() * kChunkKeys + static_cast<int>(threadIdx.x % 32);
    const int n_tokens = task.n_tokens[segment], inside = key < n_tokens ? key : 0;
    if (const std::uint8_t* laid_out = task.exponents[segment]) {
      const std::int64_t stride = task.exponents_stride[segment];
      k = load_byte(laid_out + head * stride + inside);
      v = load_byte(laid_out + (task.n_kv_heads + head) * stride + inside);
      return;
    }
    const std::int64_t at = inside * static_cast<std::int64_t>(task.row_bytes) + task.width + head;
    k = load_byte(static_cast<const std::uint8_t*>(task.k[segment]) + at);
    v = load_byte(static_cast<const std::uint8_t*>(task.v[segment]) + at);
  }
  // Of keys 8 * i + lane / 4 of the warp's: k's in the lowest byte, v's above it.
  __device__ __forceinline__ void spread(unsigned (&of_keys)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      of_keys[i] = __shfl_sync(kAllLanes, k | v << 8, 8 * i + threadIdx.x % 32 / 4);
  }

 private:
  // Not narrowed at once, which would wait for it.
  static __device__ __forceinline__ unsigned load_byte(const std::uint8_t* from) {
    unsigned byte;
    asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(byte) : "l"(from));
    return byte;
  }
};

// Scores are scaled and masked; their maxima pass to the team. of_keys: exponents of keys
// 8 * i + lane / 4 of the warp's.
template <typename Tile>
__device__ __forceinline__ void scale_scores(float (&s)[2][Tile::kRowTiles][4],
                                             const unsigned (&of_keys)[4], int n_keys,
                                             typename Tile::Shared& shared) {
  const int lane = threadIdx.x % 32;
  float factors[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) factors[i] = power_of_two(of_keys[i] & 0xff);
#pragma unroll
  for (int t = 0; t < Tile::kRowTiles; ++t)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float top = -INFINITY;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& x = s[i / 2][t][i % 2 * 2 + j];
        x = 8 * i + lane / 4 < n_keys ? x * factors[i] : -INFINITY;
        top = fmaxf(top, x);
      }
#pragma unroll
      for (int lanes = 4; lanes < 32; lanes *= 2)
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, lanes));
      if (lane < 4) shared.max[warp_of_team()][8 * t + 2 * lane + j] = top;
    }
}

// Scores become probabilities, which pass to the team times the scales of their values; what the
// state has so far is rescaled, but for sums, to which the factor is handed out.
template <typename Tile>
__device__ __forceinline__ void softmax(float (&s)[2][Tile::kRowTiles][4],
                                        const unsigned (&of_keys)[4], float scale_log2,
                                        F8State<Tile>& state, float (&rescale)[Tile::kRowTiles][2],
                                        typename Tile::Shared& shared) {
  const int lane = threadIdx.x % 32, warp = warp_of_team();
#pragma unroll
  for (int t = 0; t < Tile::kRowTiles; ++t) {
    float sums[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float top = state.max[t][j];
#pragma unroll
      for (int i = 0; i < kTeamWarps; ++i)
        top = fmaxf(top, shared.max[i][8 * t + 2 * (lane % 4) + j]);
      const float scale = scale_log2 * state.factors[t][j];
      // A row that has seen nothing yet keeps -inf, but -inf - -inf must not appear.
      const float base = top == -INFINITY ? 0.f : __fmul_rn(top, scale);
      rescale[t][j] = exp2_fast(__fmaf_rn(state.max[t][j], scale, -base));
      state.max[t][j] = top;
      sums[j] = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& x = s[i / 2][t][i % 2 * 2 + j];
        x = exp2_fast(__fmaf_rn(x, scale, -base));
        sums[j] += x;
      }
#pragma unroll
      for (int i = 0; i < Tile::kOwnChunks; ++i) {
        state.o[i][t][j] *= rescale[t][j];
        state.o[i][t][2 + j] *= rescale[t][j];
      }
    }
    shared.sums[warp][t][lane] = {sums[0], sums[1]};
#pragma unroll
    for (int strip = 0; strip < 2; ++strip) {
      std::uint32_t turned[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = power_of_two(of_keys[2 * strip + half] >> 8);
        std::uint32_t two;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;"
            : "=r"(two)
            : "f"(s[strip][t][2 * half + 1] * factor), "f"(s[strip][t][2 * half] * factor));
        turned[half] = ampere::transposed(two);
      }
      shared.p[2 * warp + strip][t][lane] = {turned[0], turned[1]};
    }
  }
}

// The first warp adds up the chunks, in order.
template <typename Tile>
__device__ __forceinline__ void add_sums(F8State<Tile>& state,
                                         const float (&rescale)[Tile::kRowTiles][2],
                                         const typename Tile::Shared& shared) {
#pragma unroll
  for (int t = 0; t < Tile::kRowTiles; ++t) {
    float2 sum = shared.sums[0][t][threadIdx.x % 32];
#pragma unroll
    for (int i = 1; i < kTeamWarps; ++i) {
      const float2 next = shared.sums[i][t][threadIdx.x % 32];
      sum.x += next.x;
      sum.y += next.y;
    }
    sum.x += __shfl_xor_sync(kAllLanes, sum.x, 4);
    sum.y += __shfl_xor_sync(kAllLanes, sum.y, 4);
    state.sum[t][0] = __fmaf_rn(state.sum[t][0], rescale[t][0], sum.x);
    state.sum[t][1] = __fmaf_rn(state.sum[t][1], rescale[t][1], sum.y);
  }
}

// Each warp its columns; the first one m and l.
template <typename Tile>
__device__ __forceinline__ void write_unit(const F8Task& task, const WorkItem& item,
                                           const F8State<Tile>& state) {
  const int lane = threadIdx.x % 32, warp = warp_of_team();
#pragma unroll
  for (int t = 0; t < Tile::kRowTiles; ++t)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float sum = state.sum[t][j];
      sum += __shfl_xor_sync(kAllLanes, sum, 8);
      sum += __shfl_xor_sync(kAllLanes, sum, 16);
      const int packed = 8 * t + 2 * (lane % 4) + j;
      const int token = packed / task.group, row = first_row_of(task, item) + token;
      if (token >= task.tokens_per_tile || row >= task.n_rows) continue;
      const int head = item.kv_head * task.group + packed % task.group;
      const std::size_t at =
          (static_cast<std::size_t>(item.split) * task.n_rows + row) * task.n_heads + head;
      float* o = task.output.partial.o + at * Tile::kHeadDim + warp * Tile::kOwnChunks * 16;
#pragma unroll
      for (int i = 0; i < Tile::kOwnChunks; ++i)
        *reinterpret_cast<float2*>(o + 16 * i + lane / 4 * 2) =
            make_float2(state.o[i][t][j], state.o[i][t][2 + j]);
      if (warp != 0 || lane >= 4) continue;
      task.output.partial.m[at] = state.max[t][j] * state.factors[t][j] * task.scale;
      task.output.partial.l[at] = sum;
    }
}

template <typename Tile>
__global__ void __launch_bounds__(32 * kTeamWarps * Tile::kTeams, 1)
    attention_f8_kernel(const __grid_constant__ F8Task task) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ char memory[];
  const int team = threadIdx.x / (32 * kTeamWarps), warp = warp_of_team();
  const int lane = threadIdx.x % 32;
  char* const aligned = memory + (-hopper::shared_address(memory) & 1023);
  char* const slots = aligned + team * Tile::kSlots * Tile::kSlotBytes;
  auto& shared = reinterpret_cast<typename Tile::Shared*>(aligned + Tile::kTeams * Tile::kSlots *
                                                                        Tile::kSlotBytes)[team];
  if (warp == 0 && lane == 0) {
    for (std::uint64_t& full : shared.full) hopper::barrier_init(&full, 1);
    hopper::barrier_init_done();
  }
  sync_team();
  let_next_kernel_start();
  if (!task.are_keys_at_rest) await_earlier_kernels();
  F8Fetch<Tile> fetch(task, slots, shared.full);
  if (warp == 0)
    for (int i = 0; i < Tile::kSlots; ++i) fetch.next();
  await_earlier_kernels();
  hopper::Ring<Tile::kSlots> ring;
  const auto await_slot = [&] {
    hopper::barrier_wait(shared.full + ring.stage, ring.phase);
    const std::uint32_t slot = hopper::shared_address(slots + ring.stage * Tile::kSlotBytes);
    ring.step();
    return slot;
  };

  const float scale_log2 = task.scale * 1.44269504088896341f;
  bool has_read_values = false;  // of a tile before, whose slot is free at the next sync
  Units<Tile::kTeams> units(task);
  WorkItem item;
  while (units.next(task, item)) {
    const int last_row = last_row_of(task, item);
    KeyWalk<kKeysPerTile> walk(task, last_row, item.split);
    F8State<Tile> state{};
#pragma unroll
    for (int t = 0; t < Tile::kRowTiles; ++t) state.max[t][0] = state.max[t][1] = -INFINITY;
    Exponents exponents;
    if (walk.n_left > 0) {
      exponents.load(task, walk.segment, walk.key, item.kv_head);
      load_queries<Tile>(task, item, shared);
      sync_team();
#pragma unroll
      for (int t = 0; t < Tile::kRowTiles; ++t)
#pragma unroll
        for (int j = 0; j < 2; ++j)
          state.factors[t][j] = shared.factors[8 * t + 2 * (lane % 4) + j];
    }
    while (walk.n_left > 0) {
      const int n_keys = walk.length - walk.key - warp * kChunkKeys;
      float s[2][Tile::kRowTiles][4] = {};
      multiply_keys<Tile>(s, await_slot(), shared);
      unsigned of_keys[4];
      exponents.spread(of_keys);
      walk.step(task, last_row);
      if (walk.n_left > 0) exponents.load(task, walk.segment, walk.key, item.kv_head);
      scale_scores<Tile>(s, of_keys, n_keys, shared);
      sync_team();
      if (warp == 0) {
        if (has_read_values) fetch.next();
        fetch.next();
      }
      has_read_values = true;
      float rescale[Tile::kRowTiles][2];
      softmax<Tile>(s, of_keys, scale_log2, state, rescale, shared);
      sync_team();
      if (warp == 0) add_sums<Tile>(state, rescale, shared);
      multiply_values<Tile>(state, await_slot(), shared);
    }
    write_unit<Tile>(task, item, state);
  }
#else
  asm volatile("trap;");  // attention_f8() is for Hopper alone
#endif
}

}  // namespace starattn::kernels
