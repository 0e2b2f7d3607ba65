// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one word (Sennrich et al., arXiv 1508.07909): of all neighbours that can
// merge, those with the lowest rank do, the leftmost first, until none can.
// O(n log n) in the length of the word.
#pragma once

#include <vector>

#include "base/next_token.h"
#include "tokenizer/merge_table.h"

namespace starattn {

// Replaces the symbols by what they merge into.
void merge_symbols(const MergeTable& merges, std::vector<Token>& symbols);

}  // namespace starattn
