// SPDX-License-Identifier: Apache-2.0
// Kernels over partials, one (row, head) pair a "value row": o [n, head_dim], m [n], l [n].
#pragma once

#include "attention.h"

namespace starattn::kernels {

// Partials of the same rows that are merged in one launch. Item i is its splits 0, 1, 2, ... merged
// in pairs, these eight at a time, in order: o [n_splits, n, head_dim], m and l [n_splits, n]. Then
// the merges, in order. An item with a result is written there, which may be its only split.
struct MergeTask {
  struct Item {
    Partial splits;
    int n_splits = 1;
    Partial result;  // or nulls
  };
  int n_items = 0, n_merges = 0;
  bool in_pairs = false;  // the attention kernel has merged pairs: each is a split here
  Item items[kMaxSegments];
  Merge merges[kMaxSegments];
};

// The splits of block_attention() (attention.h) alone: what is left of it is the task, whose items
// lie in the workspace and have no results yet.
MergeTask block_splits(const AttentionInput& input, const Merge* merges, int n_merges,
                       void* workspace, Stream stream);
// Partials that are whole, as items without results. Throws BadShape.
MergeTask parts_to_merge(const Partial* parts, int n_parts, const Merge* merges, int n_merges);

// to: where results go in place of their memory, in their order.
void merge_items(const MergeTask& task, std::int64_t n, int head_dim, Stream stream,
                 const PartsSend& to = {});
void finish_rows(const Partial& partial, std::int64_t n, int head_dim, void* out, Stream stream);
// The same of a (+) b.
void finish_merged_rows(const Partial& a, const Partial& b, std::int64_t n, int head_dim, void* out,
                        Stream stream);

}  // namespace starattn::kernels
