// SPDX-License-Identifier: Apache-2.0
// How attention is cut into tiles: which keys a tile of query rows sees and in which order blocks
// of threads take the tiles. Plain integer arithmetic, the same on the host and on the device.
#pragma once

#include "attention.h"
#include "cuda_check.h"

namespace starattn::kernels {

// Keys that belong together, cut into splits for phase 2: how many, and how many tiles each has.
struct KeySplits {
  int n_splits = 1;
  int tiles_per_split = 1 << 30;
};

// The splits of all segments of a call together (n_blocks = 1), or of each segment. In pairs: a
// unit of work is two splits in a row, which it merges itself.
struct KeyCut {
  const KeySplits* blocks;
  int n_blocks;
  bool in_pairs = false;
};

// All keys at once: phase 1.
inline bool are_whole(const KeySplits& splits) {
  return splits.tiles_per_split == KeySplits{}.tiles_per_split;
}

// Of a split's tiles, on every GPU, and of the chunks of them that Hopper's kernels sum up first:
// they shape the bits.
inline constexpr int kKeysPerTile = 128;
inline constexpr int kChunkKeys = 32;

// A run of segments with splits of its own.
struct KeyBlock {
  int first_segment, end_segment;
  int n_splits;         // 1: whole rows; here and below a pair counts as one
  int tiles_per_split;  // key tiles of the kernel's own size
};

// Everything a kernel knows about one call, passed by value as its parameter.
struct AttentionTask {
  const void* q;  // [n_rows, n_heads, head_dim], rows q_row_stride elements apart
  std::int64_t q_row_stride;
  const void* k[kMaxSegments];  // [n_tokens, n_kv_heads, head_dim]; no segment is empty
  const void* v[kMaxSegments];
  const std::uint8_t* exponents[kMaxSegments];  // KvSegment's
  int exponents_stride[kMaxSegments];           // from a head's to the next one's
  int n_tokens[kMaxSegments];
  int first_seen[kMaxSegments];  // row i sees no token before first_seen + i
  int n_segments;
  bool causal;
  bool are_keys_at_rest;

  int n_rows, n_heads, n_kv_heads;
  int group;            // query heads per kv head, packed together as rows of a tile
  int tokens_per_tile;  // query tokens in one block's tile: rows / group
  float scale;

  // The work list: kv heads in bundles whose keys fit in L2 together, row tiles, splits of keys.
  int heads_per_bundle;
  int n_row_tiles;
  int n_splits;  // of all blocks, one block's after the other's
  KeyBlock blocks[kMaxSegments];

  AttentionOutput output;  // with splits: partial [n_splits, n_rows, n_heads]
};

// The tile of a kernel for segments that have edges (KvSegment::first_seen).
template <typename Tile>
struct WithEdges : Tile {
  static constexpr bool kHasEdges = true;
};

// A call cut for tiles of tile_rows packed rows and tile_keys keys (a divisor of kKeysPerTile where
// there are splits).
AttentionTask make_task(const AttentionInput& input, const AttentionOutput& output,
                        const KeyCut& cut, int tile_rows, int tile_keys);

// Whether some row does not see a segment's first token, though a later one.
inline bool has_edges(const AttentionInput& in) {
  for (int i = 0; i < in.n_segments; ++i)
    if (in.segments[i].first_seen + in.n_rows > 1) return true;
  return false;
}

std::int64_t n_units(const AttentionTask& task);  // of work in all

// One unit of work of a block.
struct WorkItem {
  int kv_head, row_tile, split;
};

// Hands out the units to the blocks of the grid in rounds that go back and forth ("snake"): units
// are sorted by falling cost, so each pair of rounds costs every block about the same.
struct WorkList {
  int first_head = 0, round = 0;  // of the bundle, in the bundle

#ifdef __CUDACC__
  __device__ bool next(const AttentionTask& task, WorkItem& item) {
    const int block = blockIdx.x, n_blocks = gridDim.x;
    while (first_head < task.n_kv_heads) {
      const int n_items = heads(task) * task.n_row_tiles * task.n_splits;
      const int first = round * n_blocks;
      const int index = first + (round & 1 ? n_blocks - 1 - block : block);
      ++round;
      if (index < n_items) {
        item = unit(task, index);
        return true;
      }
      if (first < n_items) continue;
      first_head += heads(task);
      round = 0;
    }
    return false;
  }

  __device__ int heads(const AttentionTask& task) const {  // of the bundle
    return min(task.heads_per_bundle, task.n_kv_heads - first_head);
  }

  // Whole rows: longest rows first, heads side by side. Splits: row tiles of the same keys side by
  // side, so that the keys come from memory once.
  __device__ WorkItem unit(const AttentionTask& task, int index) const {
    const int n_heads = heads(task);
    if (task.n_splits == 1)
      return {first_head + index % n_heads, task.n_row_tiles - 1 - index / n_heads, 0};
    const int rest = index / task.n_row_tiles;
    return {first_head + rest % n_heads, index % task.n_row_tiles, rest / n_heads};
  }
#endif
};

// Walks over the key tiles of one unit: tiles of kKeys tokens that never cross a segment's end.
// With edges, from the first tile on of which the unit's first row sees something.
template <int kKeys, bool kHasEdges = false>
struct KeyWalk {
  int segment = 0, key = 0;  // where the current tile starts
  int length = 0;            // visible tokens of the current segment
  int n_left = 0;            // tiles from here on, the current one included
  int n_left_at_second = 0;  // of a pair: where its second split begins; below 1: it has none
  int first_row = 0;         // of the unit

#ifdef __CUDACC__
  KeyWalk() = default;
  // last_row: the last query row of the unit; split: which run of tiles.
  __device__ KeyWalk(const AttentionTask& task, int last_row, int split, int first_row = 0)
      : first_row(first_row) {
    const KeyBlock* block = task.blocks;
    for (; split >= block->n_splits; ++block) split -= block->n_splits;
    int n_tiles = 0;
    for (int i = block->first_segment; i < block->end_segment; ++i)
      n_tiles += tiles(task, i, visible(task, i, last_row));
    int skip = split * block->tiles_per_split;
    n_left = max(0, min(n_tiles - skip, block->tiles_per_split));
    n_left_at_second = n_left - block->tiles_per_split / 2;
    if (n_left == 0) return;
    segment = block->first_segment;
    length = visible(task, segment, last_row);
    for (;; ++segment, length = visible(task, segment, last_row)) {
      const int n = tiles(task, segment, length);
      if (skip < n) break;
      skip -= n;
    }
    key = first_key(task, segment) + skip * kKeys;
  }

  // Where the unit's tiles of a segment begin.
  __device__ int first_key(const AttentionTask& task, int i) const {
    if constexpr (!kHasEdges) return 0;
    return max(0, task.first_seen[i] + first_row) / kKeys * kKeys;
  }
  __device__ int tiles(const AttentionTask& task, int i, int n_visible) const {
    return max(0, (n_visible - first_key(task, i) + kKeys - 1) / kKeys);
  }

  __device__ static int visible(const AttentionTask& task, int i, int last_row) {
    const int n = task.n_tokens[i];
    if (!task.causal || i + 1 < task.n_segments) return n;
    return max(0, min(n, n - task.n_rows + 1 + last_row));
  }

  __device__ void step(const AttentionTask& task, int last_row) {
    if (--n_left == 0) return;
    key += kKeys;
    while (key >= length) {
      length = visible(task, ++segment, last_row);
      key = first_key(task, segment);
    }
  }

  // The first token of the current segment that a row does not see.
  __device__ int limit(const AttentionTask& task, int row) const {
    const int n = task.n_tokens[segment];
    return task.causal && segment + 1 == task.n_segments ? n - task.n_rows + 1 + row : n;
  }
  // The first one that it sees.
  __device__ int edge(const AttentionTask& task, int row) const {
    return task.first_seen[segment] + row;
  }
#endif
};

}  // namespace starattn::kernels
