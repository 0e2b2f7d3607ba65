// SPDX-License-Identifier: Apache-2.0
// Attention kernels on bf16 rows: prefill (phase 1) and partial attention over a block's keys
// (phase 2), and the fp32 merge of partials. Scores are scaled dot products with the natural
// logarithm's base; the softmax is fp32; grouped heads: kv head = head / (n_heads / n_kv_heads).
#pragma once

#include <cstddef>
#include <cstdint>

#include "launch.h"
#include "peer_exchange.h"

namespace starattn::kernels {

inline constexpr int kMaxSegments = 8;

// Keys and values of consecutive tokens, bf16, 16-byte aligned.
struct KvSegment {
  const void* k = nullptr;  // [n_tokens, n_kv_heads, head_dim]
  const void* v = nullptr;  // [n_tokens, n_kv_heads, head_dim]
  std::int64_t n_tokens = 0;
  // Row i sees no token before first_seen + i. Phase 1 alone.
  std::int64_t first_seen = kAllSeen;
  const void* exponents = nullptr;  // of FP8, as lay_out_exponents() (f8_kv.h) leaves them, or null

  static constexpr std::int64_t kAllSeen = INT64_MIN / 2;
};

struct AttentionShape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;  // 64 or 128
};

// Unfinished attention: m = max_j s_j, l = sum_j exp(s_j - m), o = sum_j exp(s_j - m) v_j.
// A row that sees no key has (0, -inf, 0).
struct Partial {
  float* o = nullptr;  // [n_rows, n_heads, head_dim]
  float* m = nullptr;  // [n_rows, n_heads]
  float* l = nullptr;  // [n_rows, n_heads]
};

// One step of merging partials that are numbered: `into` becomes itself merged with `from`.
struct Merge {
  int into = 0, from = 0;
};

// Throws BadShape where no attention kernel takes it.
void check_shape(const AttentionShape& shape);

// Query rows against segments in the order given.
struct AttentionInput {
  AttentionShape shape;
  const void* q = nullptr;  // bf16 [n_rows, n_heads, head_dim], rows q_row_stride elements apart
  std::int64_t n_rows = 0;
  std::int64_t q_row_stride = 0;  // elements; a multiple of 8
  const KvSegment* segments = nullptr;
  int n_segments = 0;   // at most kMaxSegments
  bool causal = false;  // the last segment: of n rows, row i sees the first n_tokens - n + 1 + i
  float scale = 0;      // 1 / sqrt(head_dim)
  bool is_f8 = false;   // all keys and values are rows of f8_kv.h, which block_attention() takes
  // No kernel that may still be at work writes the keys and values.
  bool are_keys_at_rest = false;
};

// Where the result goes: finished rows, the log-sum-exp, an unfinished partial; absent ones null.
struct AttentionOutput {
  void* out = nullptr;   // bf16 [n_rows, n_heads, head_dim]
  float* lse = nullptr;  // [n_rows, n_heads], m + log(l)
  Partial partial;
};

// Whether the current device runs its own kernels (wgmma) or those of all GPUs (mma.sync), which
// STARATTN_KERNELS=sm80|sm90 can ask for. Throws std::invalid_argument where it asks for neither,
// or for what the device has not.
bool takes_hopper_kernels();

// Phase 1. Throws BadShape or CudaFailure; asynchronous on `stream`.
void prefill_attention(const AttentionInput& input, const AttentionOutput& output, Stream stream);

// Phase 2: few rows, many keys. The keys are cut into splits whose bounds depend on the keys
// alone, and merged in a fixed order, so that a row's bits do not depend on the other rows.
// `workspace` holds partial_attention_workspace() bytes on the device.
std::size_t partial_attention_workspace(const AttentionInput& input);
void partial_attention(const AttentionInput& input, const Partial& result, void* workspace,
                       Stream stream);

// The same for blocks of keys beside each other: segment i is block i, and partial i gets the bits
// of a call with that segment alone. Then the merges, in order; results[i] gets what partial i has
// become, and may be nulls. Nothing may be causal. At most kMaxSegments merges. Of FP8 keys and
// values (Hopper alone) the bits are those of the same numbers in bf16. Keys and values are read
// before the kernel in front has ended, if they are at rest. to: where the results go in place of
// their memory.
std::size_t block_attention_workspace(const AttentionInput& input);
void block_attention(const AttentionInput& input, const Merge* merges, int n_merges,
                     const Partial* results, void* workspace, Stream stream,
                     const PartsSend& to = {});

// The merges, in order, of at most kMaxSegments partials [n_rows, n_heads], in place; those merged
// into others may hold anything.
void merge_partials(const Partial* parts, int n_parts, const Merge* merges, int n_merges,
                    std::int64_t n_rows, const AttentionShape& shape, Stream stream);

// out = o / l as bf16 [n_rows, n_heads, head_dim]; a row without keys gives 0.
void finish_partial(const Partial& partial, std::int64_t n_rows, const AttentionShape& shape,
                    void* out, Stream stream);
// The same of a merged with b, which both stay as they are.
void finish_merged(const Partial& a, const Partial& b, std::int64_t n_rows,
                   const AttentionShape& shape, void* out, Stream stream);

}  // namespace starattn::kernels
