// SPDX-License-Identifier: Apache-2.0
// What "auto" stands for in --block-size, --anchor-size and --recall, for every command. An answer
// has the bits of its setting, so these depend on neither ranks nor machine; the block size, on the
// document's length alone, is auto_block_size() of star/plan.h.
#pragma once

#include <cstdint>

#include "star/token_share.h"

namespace starattn {

// docs/recall.md and docs/choosing.md say why.
TokenShare auto_recall();  // of the block size
std::int64_t auto_anchor(std::int64_t block_size, bool recalls);
// In a PlanRequest: the block size is known when the plan is made.
inline constexpr TokenShare kAutoAnchor{.n_tokens = -1};

}  // namespace starattn
