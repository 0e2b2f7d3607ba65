// SPDX-License-Identifier: Apache-2.0
// Recall: which rows of a block ask, and how well each earlier key answers (docs/recall.md).
#pragma once

#include "backend/backend.h"
#include "backend/cuda/device.h"

namespace starattn::cuda {

void choose_asking_rows(Device& device, const KvSegment& block, const AttentionShape& shape,
                        std::int64_t n_rows, std::int32_t* rows);
void gather_rows(Device& device, std::span<const RawRows> from, const std::int32_t* rows,
                 RawRows to);
void log_sum_exp(Device& device, Rows q, const KvSegment& first, const KvSegment& second,
                 const AttentionShape& shape, float* z);
void score_keys(Device& device, Rows q, const float* z, const KvSegment& keys,
                const AttentionShape& shape, float* scores);

}  // namespace starattn::cuda
