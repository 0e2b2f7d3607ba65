// SPDX-License-Identifier: Apache-2.0
// What "auto" stands for in --block-size, --anchor-size, --recall and --recall-rows, for every
// command. An answer has the bits of its setting, so these depend on neither ranks nor machine.
#pragma once

#include <cstdint>

#include "star/token_share.h"

namespace starattn {

// The paper's rule: n/4 tokens a block, 32k for documents over 128k; never under 512.
std::int64_t auto_block_size(std::int64_t n_context);

// docs/recall.md and docs/choosing.md say why.
TokenShare auto_recall();  // of the block size
// With recall one token in 16, and never fewer than 256 of those that are there.
std::int64_t auto_anchor(std::int64_t block_size, bool recalls);
// One row in 16, and never fewer than 64 of those that are there.
std::int64_t auto_recall_rows(std::int64_t block_size);
// In a PlanRequest: the block size is known when the plan is made.
inline constexpr TokenShare kAutoAnchor{.n_tokens = -1};

}  // namespace starattn
