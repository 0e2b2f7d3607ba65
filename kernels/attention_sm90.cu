// SPDX-License-Identifier: Apache-2.0
// The host side of attention on Hopper: tensor maps, the choice of a tile, the launch.
#include <algorithm>

#include "attention_sm90.cuh"

#include "attention_sm90.h"
#include "cuda_check.h"
#include "tensor_map.h"

namespace starattn::kernels {
namespace {

// Keys of one bundle of kv heads that are meant to stay in L2 (50 MB on an H100) while all blocks
// work on it.
constexpr std::int64_t kBundleBytes = 24 << 20;

int heads_that_fit(const AttentionShape& shape, std::int64_t n_keys) {
  const std::int64_t head_bytes = std::max<std::int64_t>(1, 4 * n_keys * shape.head_dim);
  return static_cast<int>(std::clamp<std::int64_t>(kBundleBytes / head_bytes, 1, shape.n_kv_heads));
}

// What the pieces are of.
enum class Keys { all_segments, each_segment };

template <typename Tile>
AttentionTask make_task(const AttentionInput& in, const AttentionOutput& out, Keys keys,
                        const KeyPieces* pieces) {
  const AttentionShape& shape = in.shape;
  AttentionTask task{};
  task.group = shape.n_heads / shape.n_kv_heads;
  task.tokens_per_tile = Tile::kRows / task.group;
  task.q = tensor_map(in.q, {shape.head_dim, shape.n_heads, in.n_rows}, in.q_row_stride,
                      {64, task.group, task.tokens_per_tile});
  std::int64_t n_keys = 0;
  const int n_blocks = keys == Keys::all_segments ? 1 : in.n_segments;
  for (int i = 0; i < n_blocks; ++i) {
    task.blocks[i] = {0, 0, pieces[i].n_pieces, pieces[i].tiles_per_piece};
    task.n_pieces += pieces[i].n_pieces;
  }
  for (int i = 0; i < in.n_segments; ++i) {
    const KvSegment& segment = in.segments[i];
    KeyBlock& block = task.blocks[keys == Keys::all_segments ? 0 : i];
    if (keys == Keys::each_segment) block.first_segment = block.end_segment = task.n_segments;
    if (segment.n_tokens == 0) continue;
    const std::int64_t stride = static_cast<std::int64_t>(shape.n_kv_heads) * shape.head_dim;
    const int at = task.n_segments++;
    const TensorSize size{shape.head_dim, shape.n_kv_heads, segment.n_tokens};
    const TensorBox box{64, 1, Tile::kKeys};
    task.k[at] = tensor_map(segment.k, size, stride, box);
    task.v[at] = tensor_map(segment.v, size, stride, box);
    task.n_tokens[at] = static_cast<int>(segment.n_tokens);
    task.causal = in.causal && i + 1 == in.n_segments;
    block.end_segment = task.n_segments;
    n_keys += segment.n_tokens;
  }
  task.n_rows = static_cast<int>(in.n_rows);
  task.n_heads = shape.n_heads;
  task.n_kv_heads = shape.n_kv_heads;
  task.scale = in.scale;
  task.heads_per_bundle = task.n_pieces > 1 ? shape.n_kv_heads : heads_that_fit(shape, n_keys);
  task.n_row_tiles = (task.n_rows + task.tokens_per_tile - 1) / task.tokens_per_tile;
  task.output = out;
  return task;
}

int n_multiprocessors() {
  int device = 0, n = 0;
  check_cuda(cudaGetDevice(&device), "attention: device");
  check_cuda(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device),
             "attention: multiprocessors");
  return n;
}

template <typename Tile>
void launch(const AttentionInput& in, const AttentionOutput& out, Keys keys,
            const KeyPieces* pieces, Stream stream) {
  const AttentionTask task = make_task<Tile>(in, out, keys, pieces);
  check_cuda(cudaFuncSetAttribute(attention_sm90_kernel<Tile>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             "attention: shared memory");
  const std::int64_t n_items =
      static_cast<std::int64_t>(task.n_kv_heads) * task.n_row_tiles * task.n_pieces;
  static const int n_blocks = n_multiprocessors();  // a block fills one
  const int grid = static_cast<int>(std::min<std::int64_t>(n_blocks, n_items));
  attention_sm90_kernel<Tile><<<grid, Tile::kThreads, Tile::kSharedBytes, stream>>>(task);
  check_launch("attention");
}

// Tiles as measured on an H200 (docs/performance.md). Pieces keep kKeysPerTile, which shapes the
// bits; a tile of few rows leaves the threads to the copies.
template <int kHeadDim, typename WholeRows>
void launch_fitting(const AttentionInput& in, const AttentionOutput& out, Keys keys,
                    const KeyPieces* pieces, Stream stream) {
  if (keys == Keys::all_segments && are_whole(*pieces))
    return launch<WholeRows>(in, out, keys, pieces, stream);
  const std::int64_t packed_rows = in.n_rows * (in.shape.n_heads / in.shape.n_kv_heads);
  if (packed_rows <= 64)
    return launch<AttentionTile<kHeadDim, kKeysPerTile, 3, 1>>(in, out, keys, pieces, stream);
  return launch<AttentionTile<kHeadDim, kKeysPerTile, 2, 2>>(in, out, keys, pieces, stream);
}

void launch_fitting(const AttentionInput& in, const AttentionOutput& out, Keys keys,
                    const KeyPieces* pieces, Stream stream) {
  if (in.shape.head_dim == 64)
    launch_fitting<64, AttentionTile<64, 128, 2, 3>>(in, out, keys, pieces, stream);
  else
    launch_fitting<128, AttentionTile<128, 176, 2, 2>>(in, out, keys, pieces, stream);
}

}  // namespace

void attention_sm90(const AttentionInput& in, const AttentionOutput& out, const KeyPieces& pieces,
                    Stream stream) {
  launch_fitting(in, out, Keys::all_segments, &pieces, stream);
}

void block_attention_sm90(const AttentionInput& in, const Partial& parts, const KeyPieces* pieces,
                          Stream stream) {
  launch_fitting(in, {nullptr, nullptr, parts}, Keys::each_segment, pieces, stream);
}

}  // namespace starattn::kernels
