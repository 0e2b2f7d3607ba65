// SPDX-License-Identifier: Apache-2.0
// Recall (docs/recall.md): which rows of a block ask, what earlier keys are worth to them, the
// choice of the best, and their rows. Everything is deterministic: no result depends on which
// thread comes first.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention.h"
#include "launch.h"

namespace starattn::kernels {

// unlikeness [n_tokens] fp32: minus the cosine of each key to the block's mean key, averaged over
// KV heads. workspace: unlikeness_workspace() bytes on the device.
std::size_t unlikeness_workspace(std::int64_t n_tokens, const AttentionShape& shape);
void unlikeness_to_mean(const void* k, std::int64_t n_tokens, const AttentionShape& shape,
                        float* unlikeness, void* workspace, Stream stream);

// best [n_best]: numbers of the highest scores, ascending; of equals the earlier; what is not a
// number counts as lowest. best_scores [n_best]: theirs. n_scores < 2^31.
void choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                 std::int32_t* best, float* best_scores, Stream stream);

// Rows of row_bytes (a multiple of 16), 16-byte aligned, in device or pinned host memory.
struct RowSource {
  const void* data = nullptr;
  std::int64_t n_rows = 0;
};
// to[i] = row rows[i] of all sources, one after another.
void gather_rows(const RowSource* sources, int n_sources, const std::int32_t* rows,
                 std::int64_t n_rows, std::size_t row_bytes, void* to, Stream stream);

// Asking rows: q bf16 [n_rows, n_heads, head_dim], contiguous.
struct AskingRows {
  AttentionShape shape;
  const void* q = nullptr;
  std::int64_t n_rows = 0;
  float scale = 0;  // 1 / sqrt(head_dim)
};

// z [n_rows, n_heads]: log-sum-exp of each row's scores over all keys of both segments, of which
// one may be empty. Values are not read.
void log_sum_exp(const AskingRows& asking, const KvSegment& first, const KvSegment& second,
                 float* z, Stream stream);

// scores [keys.n_tokens]: mean over heads of max over rows of exp(min(s - z, 80)). workspace:
// score_workspace() bytes on the device.
std::size_t score_workspace(const AskingRows& asking);
void score_keys(const AskingRows& asking, const float* z, const KvSegment& keys, float* scores,
                void* workspace, Stream stream);

}  // namespace starattn::kernels
