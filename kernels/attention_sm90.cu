// SPDX-License-Identifier: Apache-2.0
// The host side of attention on Hopper: tensor maps, the choice of a tile, the launch.
#include <algorithm>

#include "attention_sm90.cuh"

#include "attention_sm90.h"
#include "tensor_map.h"

namespace starattn::kernels {
namespace {

template <typename Tile>
HopperTask make_hopper_task(const AttentionInput& in, const AttentionOutput& out,
                            const KeyCut& cut) {
  const AttentionShape& shape = in.shape;
  HopperTask task{make_task(in, out, cut, Tile::kRows, Tile::kKeys), {}, {}, {}};
  task.q_map = tensor_map(in.q, {shape.head_dim, shape.n_heads, in.n_rows}, in.q_row_stride,
                          {64, task.group, task.tokens_per_tile});
  const std::int64_t stride = static_cast<std::int64_t>(shape.n_kv_heads) * shape.head_dim;
  const TensorBox box{64, 1, Tile::kKeys};
  for (int i = 0; i < task.n_segments; ++i) {
    const TensorSize size{shape.head_dim, shape.n_kv_heads, task.n_tokens[i]};
    task.k_maps[i] = tensor_map(task.k[i], size, stride, box);
    task.v_maps[i] = tensor_map(task.v[i], size, stride, box);
  }
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

// Tiles as measured on an H200 (docs/performance.md). Pieces keep kKeysPerTile, which shapes the
// bits; a tile of few rows leaves the threads to the copies.
template <int kHeadDim, typename WholeRows>
void launch_fitting(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                    Stream stream) {
  if (are_whole(cut.blocks[0])) return launch<WholeRows>(in, out, cut, stream);
  const std::int64_t packed_rows = in.n_rows * (in.shape.n_heads / in.shape.n_kv_heads);
  if (packed_rows <= 64)
    return launch<AttentionTile<kHeadDim, kKeysPerTile, 3, 1>>(in, out, cut, stream);
  launch<AttentionTile<kHeadDim, kKeysPerTile, 2, 2>>(in, out, cut, stream);
}

}  // namespace

void attention_sm90(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                    Stream stream) {
  if (in.shape.head_dim == 64)
    launch_fitting<64, AttentionTile<64, 128, 2, 3>>(in, out, cut, stream);
  else
    launch_fitting<128, AttentionTile<128, 176, 2, 2>>(in, out, cut, stream);
}

}  // namespace starattn::kernels
