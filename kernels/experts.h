// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts: who takes which row, the products of each expert with its rows, and the sum.
// A place is a row and one of its experts, row * n_chosen + i; places are sorted by expert and
// within one by row, so that an expert's rows lie together. Every row is treated by itself, in a
// fixed order. All asynchronous on `stream`; all pointers are device memory, 16-byte aligned
// but for SortedPlaces' own, of which 4 bytes are enough.
#pragma once

#include <cstdint>

#include "launch.h"

namespace starattn::kernels {

inline constexpr int kMostExperts = 1024;

// Consecutive sorted places of one expert, which a block works on together.
struct ExpertTile {
  std::int32_t expert, first, n;
};

struct SortedPlaces {
  std::int32_t* places = nullptr;  // [n_places]: in sorted order
  std::int32_t* sorted = nullptr;  // [n_places]: where each place is among them
  ExpertTile* tiles = nullptr;     // [most_expert_tiles()], of which n_tiles are needed
  std::int32_t* n_tiles = nullptr;
  std::int64_t n_places = 0;
  int tile_rows = 0;
};

// Tiles that n_places can need.
std::int64_t most_expert_tiles(std::int64_t n_places, int n_experts, int tile_rows);

// experts [to.n_places]: each place's. Throws BadShape.
void sort_places(const std::int32_t* experts, int n_experts, const SortedPlaces& to, Stream stream);

// How experts are chosen by their logits, and how much of each is taken: its share of the softmax
// over all, or its sigmoid.
struct Routing {
  bool is_sigmoid = false;
  bool renormalise = false;  // then divided by their sum over the chosen, that of sigmoids + 1e-20
  float scale = 1;           // and multiplied by this
  const float* correction = nullptr;  // [n_experts], or null: what the choice adds to sigmoids
};

// Of each row of logits [n_rows, n_experts], fp32: the n_chosen largest, or those with the largest
// corrected sigmoids; of equals the lower, a NaN counting as lowest. experts, shares [n_rows,
// n_chosen]: in ascending order. Their places are sorted as sort_places() does it. Throws BadShape.
void choose_experts(const float* logits, std::int64_t n_rows, int n_experts, int n_chosen,
                    const Routing& routing, std::int32_t* experts, float* shares,
                    const SortedPlaces& sorted, Stream stream);

// The rows of a tile that the two ways of multiplying take.
inline constexpr int kThinTileRows = 8;    // bound by reading the matrices
inline constexpr int kWideTileRows = 128;  // bound by multiplying

// y[i] = x[row of sorted place i] w^T for every sorted place i, with its expert's matrices. fp32
// accumulation over n_in in an order that depends on n_in and tile_rows alone.
struct ExpertLinear {
  const void* x = nullptr;            // bf16 [n_rows, n_in]
  const void* const* w = nullptr;     // [n_experts]: bf16 [n_out, n_in]
  const void* const* w_up = nullptr;  // alike, or null. Then y = silu(w's) * (w_up's), each rounded
  // Where the matrices are FP8 (e4m3): [n_experts], of each a scale for each block, row-major.
  const float* const* scales = nullptr;
  const float* const* up_scales = nullptr;
  std::int64_t block_rows = 0, block_cols = 0;  // block_cols: n_in or more, or a multiple of 128
  std::int64_t first_row = 0;        // of the matrices, counted from the first block of scales
  void* y = nullptr;                 // bf16 [n_places, n_out]
  std::int64_t n_out = 0, n_in = 0;  // n_in: a multiple of 8; n_out: of 2
  int n_experts = 0;
  // Row of a place: place / places_per_row. 0: x has a row for each sorted place, in their order.
  int places_per_row = 0;
  // Where tiles have few rows: another such product, which is not behind another itself, has been
  // launched since the tiles, the pointers, the matrices and the scales came to be. Then these are
  // read while the kernels in front are still at work.
  bool is_behind_another = false;
};

// sorted.tile_rows: kThinTileRows, or kWideTileRows where the matrices are bf16. n_in: a multiple
// of 16 with FP8. Throws BadShape.
void expert_linear(const ExpertLinear& product, const SortedPlaces& sorted, Stream stream);

// to bf16 [n_experts, n_rows, n_cols]: FP8 matrices of experts, each times its scales; n_cols and
// block_cols as above. Throws BadShape.
struct ExpertMatrices {
  const void* const* values = nullptr;  // [n_experts]: [n_rows, n_cols]
  const float* const* scales = nullptr;
  int n_experts = 0;
  std::int64_t n_rows = 0, n_cols = 0;
  std::int64_t block_rows = 0, block_cols = 0;
};
void widen_experts(const ExpertMatrices& from, void* to, Stream stream);

// x[i] += the sum over row i's places, in order, of share times made[where the place was sorted
// to]; x bf16 [n_rows, width], made bf16 [n_places, width]; width: a multiple of 8. The sum is
// fp32.
void add_made(void* x, const void* made, const std::int32_t* sorted, const float* shares,
              std::int64_t n_rows, int n_chosen, std::int64_t width, Stream stream);

}  // namespace starattn::kernels
