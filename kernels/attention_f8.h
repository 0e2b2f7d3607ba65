// SPDX-License-Identifier: Apache-2.0
// Attention of few rows to FP8 keys and values on Hopper, by teams of warps.
#pragma once

#include "attention_work.h"

namespace starattn::kernels {

// Whether the rows are so few that teams are faster than attention_sm90(), or exponents are not
// laid out, which that one needs.
bool are_for_teams(const AttentionInput& input, const KeyCut& cut);

// Splits of FP8 rows, with the bits of attention_sm90() for the bf16 numbers that they stand for.
// Only the partial is written.
void attention_f8(const AttentionInput& input, const AttentionOutput& output, const KeyCut& cut,
                  Stream stream);

}  // namespace starattn::kernels
