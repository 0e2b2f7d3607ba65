// SPDX-License-Identifier: Apache-2.0
// FP8 numbers on the CPU: by table, in fp32.
#pragma once

#include <array>
#include <vector>

#include "backend/cpu/thread_pool.h"
#include "backend/tensors.h"

namespace starattn::cpu {

const std::array<float, 256>& f8_values();  // by their bits

// One head of n tokens' keys or values, `rows` as KvLayout has them in FP8. to [n, head_dim]
void widen_head(const std::byte* rows, const KvLayout& layout, std::int64_t head, std::int64_t n,
                float* to);

// Rows, each rounded to FP8 with a scale of its own (to_f8()), as the numbers these stand for. In
// `memory`.
Rows rounded_rows(ThreadPool& pool, Rows x, std::vector<float>& memory);

// The keys of a segment in fp32, [n_tokens, n_heads, head_dim]: in `memory` where they are FP8.
const float* keys_in_f32(const KvSegment& segment, const AttentionShape& shape,
                         std::vector<float>& memory);

}  // namespace starattn::cpu
