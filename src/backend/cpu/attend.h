// SPDX-License-Identifier: Apache-2.0
// Attention on the CPU: online softmax over tiles of keys (FlashAttention, arXiv 2205.14135), the
// heads of a GQA group packed together against the keys they share. No score leaves the cache.
//
// Keys are cut into splits at fixed places of their segment; a split starts an attention of its
// own, which is then merged, in order. So few rows can still be spread over many threads, and the
// bits of a row do not depend on whether they were.
#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"

namespace starattn::cpu {

constexpr std::int64_t kHeadDimUnit = 16;  // head dims are multiples of it: whole vectors

// As Backend::attend. Rows q and KV are fp32.
void attend(ThreadPool& pool, const Kernels& kernels, Rows q, std::span<const KvSegment> segments,
            const AttentionShape& shape, Product product, Partial partial);

constexpr std::int64_t kKeyTile = 128;  // keys whose scores are in cache together

// rows [n, d] with row stride `stride` -> to [d, to_stride], zero from n to the next multiple
// of 16. d: a multiple of kHeadDimUnit.
void transpose(const float* rows, std::int64_t stride, std::int64_t n, std::int64_t d, float* to,
               std::int64_t to_stride);

// into <- into (+) from for one row and head: o [head_dim].
void merge_row(float* o, float& m, float& l, const float* from_o, float from_m, float from_l,
               std::int64_t head_dim);

}  // namespace starattn::cpu
