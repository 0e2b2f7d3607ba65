// SPDX-License-Identifier: Apache-2.0
// Attention of phase 2 in which every row has tokens of its own: the last step, over its query's
// earlier tokens and itself, and what its window shows of the context.
#pragma once

#include "attention_merge.h"
#include "peer_exchange.h"

namespace starattn::kernels {

inline constexpr int kMaxOwnRows = 128;  // of one launch

// Where a row's query keeps its K and V of one layer.
struct OwnTokens {
  void* k = nullptr;  // bf16 [at least n_before + 1, n_kv_heads, head_dim]
  void* v = nullptr;
  int n_before = 0;  // tokens of the query before this row
  int n_beside = 0;  // of them: the rows just before this one, whose K and V are taken from there
};

// Whether so few rows' splits are best merged there.
bool take_splits_with_own_tokens(std::int64_t n_rows, const AttentionShape& shape);

// Partials that come from other devices, and from this one, as their PartsSend has it: item i of
// the context is part i, whose value rows begin at lines[i].
struct AwaitedParts : PeerWait {
  int n_parts = 0;  // 0: nothing is awaited
  const void* lines[kMaxSegments] = {};
};

// out = the context's partial, which is item `root` once the task's merges were done, merged with
// attention of row i over tokens 0 to n_before of its query, finished; row i of k and v is kept as
// token n_before. The items stay as they are. q, out bf16 [n_rows, n_heads, head_dim]; k, v bf16
// [n_rows, n_kv_heads, head_dim]. Items in splits are for few rows alone. send: where out goes as
// well. awaited: the context's parts, all of them, if they are still to come. Throws BadShape.
void attend_own_tokens(const void* q, const void* k, const void* v, const OwnTokens* own,
                       std::int64_t n_rows, const AttentionShape& shape, float scale,
                       const MergeTask& context, int root, void* out, Stream stream,
                       const PeerSend& send = {}, const AwaitedParts& awaited = {});

// result = attention of row i over the tokens of a segment from first[i] on, first on the host:
// what a window shows of the context. A block goes over all of a row's tokens, so there may not be
// many. Throws BadShape.
inline constexpr std::int64_t kMostTailTokens = 512;
void attend_tail(const void* q, const KvSegment& tail, const std::int64_t* first,
                 std::int64_t n_rows, const AttentionShape& shape, float scale,
                 const Partial& result, Stream stream);

}  // namespace starattn::kernels
