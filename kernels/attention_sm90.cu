// SPDX-License-Identifier: Apache-2.0
// The host side of attention on Hopper: tensor maps, the choice of a tile, the launch.
#include <algorithm>

#include "attention_sm90.cuh"

#include "attention_sm90.h"
#include "f8_kv.h"
#include "tensor_map.h"

namespace starattn::kernels {
namespace {

// Splits keep kKeysPerTile, which shapes the bits; a tile of few rows leaves the threads to the
// copies.
template <int kHeadDim>
using FewRows = AttentionTile<kHeadDim, kKeysPerTile, 3, 1, true>;
template <int kHeadDim>
using ManyRows = AttentionTile<kHeadDim, kKeysPerTile, 2, 2, true>;
template <int kHeadDim>
using FewRowsF8 = AttentionTile<kHeadDim, kKeysPerTile, 2, 1, true, false, 2>;
template <int kHeadDim>
using ManyRowsF8 = AttentionTile<kHeadDim, kKeysPerTile, 2, 2, true, false, 2>;
template <int kHeadDim>
using ManyRowsInPairs = AttentionTile<kHeadDim, kKeysPerTile, 2, 2, true, true>;

int group_of(const AttentionShape& shape) {
  return shape.n_heads / shape.n_kv_heads;
}
std::int64_t packed_rows(const AttentionInput& in) {
  return in.n_rows * group_of(in.shape);
}

template <typename Tile>
void add_maps(const AttentionShape& shape, HopperTask& task) {
  const std::int64_t stride = static_cast<std::int64_t>(shape.n_kv_heads) * shape.head_dim;
  const TensorBox box{64, 1, Tile::kKeys};
  for (int i = 0; i < task.n_segments; ++i) {
    const TensorSize size{shape.head_dim, shape.n_kv_heads, task.n_tokens[i]};
    task.k_maps[i] = tensor_map(task.k[i], size, stride, box);
    task.v_maps[i] = tensor_map(task.v[i], size, stride, box);
  }
}

template <typename Tile>
void add_f8_maps(const AttentionShape& shape, HopperTask& task) {
  static_assert(exponents_stride(1) % Tile::kF8Keys == 0, "a warp copies as many at once");
  const F8Rows rows{nullptr, 0, shape.n_kv_heads, shape.head_dim};
  const auto numbers = [&](const void* data, int n_tokens) {
    return byte_map(data, rows.width(), n_tokens, rows.row_bytes(), shape.head_dim, Tile::kF8Keys);
  };
  for (int i = 0; i < task.n_segments; ++i) {
    task.k_maps[i] = numbers(task.k[i], task.n_tokens[i]);
    task.v_maps[i] = numbers(task.v[i], task.n_tokens[i]);
  }
}

template <typename Tile>
HopperTask make_hopper_task(const AttentionInput& in, const AttentionOutput& out,
                            const KeyCut& cut) {
  const AttentionShape& shape = in.shape;
  HopperTask task{};
  static_cast<AttentionTask&>(task) = make_task(in, out, cut, Tile::kRows, Tile::kKeys);
  task.q_map = tensor_map(in.q, {shape.head_dim, shape.n_heads, in.n_rows}, in.q_row_stride,
                          {64, task.group, task.tokens_per_tile});
  if constexpr (Tile::kIsF8)
    add_f8_maps<Tile>(shape, task);
  else
    add_maps<Tile>(shape, task);
  return task;
}

template <typename Tile>
void launch(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
            Stream stream) {
  const HopperTask task = make_hopper_task<Tile>(in, out, cut);
  check_cuda(cudaFuncSetAttribute(attention_sm90_kernel<Tile>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             "attention: shared memory");
  static const int n_blocks = n_multiprocessors();  // a block fills one
  const int grid = static_cast<int>(std::min<std::int64_t>(n_blocks, n_units(task)));
  launch_overlapping("attention", attention_sm90_kernel<Tile>,
                     {static_cast<unsigned>(grid), 1, Tile::kThreads, Tile::kSharedBytes}, stream,
                     task);
}

bool are_few(std::int64_t n_packed_rows) {
  return n_packed_rows <= FewRows<128>::kRows;
}

template <int kHeadDim, typename WholeRows>
void launch_fitting(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                    Stream stream) {
  if (in.is_f8) {
    if (are_few(packed_rows(in))) return launch<FewRowsF8<kHeadDim>>(in, out, cut, stream);
    return launch<ManyRowsF8<kHeadDim>>(in, out, cut, stream);
  }
  if (are_whole(cut.blocks[0])) {
    if (has_edges(in)) return launch<WithEdges<WholeRows>>(in, out, cut, stream);
    return launch<WholeRows>(in, out, cut, stream);
  }
  if (cut.in_pairs) return launch<ManyRowsInPairs<kHeadDim>>(in, out, cut, stream);
  if (are_few(packed_rows(in))) return launch<FewRows<kHeadDim>>(in, out, cut, stream);
  launch<ManyRows<kHeadDim>>(in, out, cut, stream);
}

}  // namespace

bool take_splits_in_pairs(const AttentionInput& in, const KeyCut& cut) {
  if (are_few(packed_rows(in))) return false;
  const std::int64_t rows_per_tile = ManyRowsInPairs<128>::kRows / group_of(in.shape);
  const std::int64_t n_tiles =
      (in.n_rows + rows_per_tile - 1) / rows_per_tile * in.shape.n_kv_heads;
  std::int64_t n_splits = 0, n_pairs = 0;
  for (int i = 0; i < cut.n_blocks; ++i) {
    n_splits += cut.blocks[i].n_splits;
    n_pairs += (cut.blocks[i].n_splits + 1) / 2;
  }
  static const int n_blocks = n_multiprocessors();
  const auto n_rounds = [&](std::int64_t n_units) { return (n_units + n_blocks - 1) / n_blocks; };
  return 2 * n_rounds(n_pairs * n_tiles) <= n_rounds(n_splits * n_tiles);
}

// Tiles of whole rows as measured on an H200 (docs/performance.md).
void attention_sm90(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                    Stream stream) {
  if (in.shape.head_dim == 64)
    launch_fitting<64, AttentionTile<64, 128, 2, 3>>(in, out, cut, stream);
  else
    launch_fitting<128, AttentionTile<128, 176, 2, 2>>(in, out, cut, stream);
}

}  // namespace starattn::kernels
