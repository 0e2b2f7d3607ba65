// SPDX-License-Identifier: Apache-2.0
#include "attention_work.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "cuda_check.h"
#include "f8_kv.h"

namespace starattn::kernels {
namespace {

// Keys of one bundle of kv heads that are meant to stay in L2 (50 MB on an H100, 40 MB on an A100)
// while all blocks work on it.
constexpr std::int64_t kBundleBytes = 24 << 20;

int heads_that_fit(const AttentionShape& shape, std::int64_t n_keys) {
  const std::int64_t head_bytes = std::max<std::int64_t>(1, 4 * n_keys * shape.head_dim);
  return static_cast<int>(std::clamp<std::int64_t>(kBundleBytes / head_bytes, 1, shape.n_kv_heads));
}

}  // namespace

AttentionTask make_task(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                        int tile_rows, int tile_keys) {
  const AttentionShape& shape = in.shape;
  AttentionTask task{};
  task.q = in.q;
  task.q_row_stride = in.q_row_stride;
  for (int i = 0; i < cut.n_blocks; ++i) {
    const KeySplits& splits = cut.blocks[i];
    const int own_tiles = are_whole(splits) ? 1 : kKeysPerTile / tile_keys;
    const int together = cut.in_pairs ? 2 : 1;
    const int n_splits = (splits.n_splits + together - 1) / together;
    task.blocks[i] = {0, 0, n_splits, splits.tiles_per_split * own_tiles * together};
    task.n_splits += n_splits;
  }
  std::int64_t n_keys = 0;
  for (int i = 0; i < in.n_segments; ++i) {
    const KvSegment& segment = in.segments[i];
    KeyBlock& block = task.blocks[cut.n_blocks == 1 ? 0 : i];
    if (cut.n_blocks > 1) block.first_segment = block.end_segment = task.n_segments;
    if (segment.n_tokens == 0) continue;
    const int at = task.n_segments++;
    task.k[at] = segment.k;
    task.v[at] = segment.v;
    task.exponents[at] = static_cast<const std::uint8_t*>(segment.exponents);
    task.exponents_stride[at] = static_cast<int>(exponents_stride(segment.n_tokens));
    task.n_tokens[at] = static_cast<int>(segment.n_tokens);
    constexpr std::int64_t kLowest = -(1 << 30);  // rows are fewer
    task.first_seen[at] = static_cast<int>(std::max(kLowest, segment.first_seen));
    task.causal = in.causal && i + 1 == in.n_segments;
    block.end_segment = task.n_segments;
    n_keys += segment.n_tokens;
  }
  task.are_keys_at_rest = in.are_keys_at_rest;
  task.n_rows = static_cast<int>(in.n_rows);
  task.n_heads = shape.n_heads;
  task.n_kv_heads = shape.n_kv_heads;
  task.group = shape.n_heads / shape.n_kv_heads;
  task.tokens_per_tile = tile_rows / task.group;
  task.scale = in.scale;
  task.heads_per_bundle = task.n_splits > 1 ? shape.n_kv_heads : heads_that_fit(shape, n_keys);
  task.n_row_tiles = (task.n_rows + task.tokens_per_tile - 1) / task.tokens_per_tile;
  task.output = out;
  return task;
}

std::int64_t n_units(const AttentionTask& task) {
  return static_cast<std::int64_t>(task.n_kv_heads) * task.n_row_tiles * task.n_splits;
}

}  // namespace starattn::kernels
