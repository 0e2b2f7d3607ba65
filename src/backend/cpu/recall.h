// SPDX-License-Identifier: Apache-2.0
// The CPU's side of recall: which rows of a block ask, what earlier keys are worth to them, and the
// choice. Every value is one chain of operations in a fixed order; see backend/backend.h.
#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"

namespace starattn::cpu {

// likeness [block.n_tokens]: of each key to the block's mean key, the cosine averaged over KV
// heads; a key or a mean of length 0 has the cosine 0.
void likeness_to_mean(ThreadPool& pool, const KvSegment& block, const AttentionShape& shape,
                      float* likeness);

void log_sum_exp(ThreadPool& pool, const Kernels& kernels, Rows q, const KvSegment& first,
                 const KvSegment& second, const AttentionShape& shape, float* z);

void score_keys(ThreadPool& pool, const Kernels& kernels, Rows q, const float* z,
                const KvSegment& keys, const AttentionShape& shape, float* scores);

void choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                 std::int32_t* best, float* best_scores);

}  // namespace starattn::cpu
