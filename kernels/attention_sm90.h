// SPDX-License-Identifier: Apache-2.0
// Launches attention on Hopper. Arguments are checked by the caller (attention.cpp).
#pragma once

#include "attention_work.h"

namespace starattn::kernels {

// Whether a unit of work had better be two splits than one: half as many partials, and a pair's
// products overlap. Takes no longer by the rounds that the device needs.
bool take_splits_in_pairs(const AttentionInput& input, const KeyCut& cut);

// Partials of splits, or of pairs where the cut says so, come one block's after the other's.
void attention_sm90(const AttentionInput& input, const AttentionOutput& output, const KeyCut& cut,
                    Stream stream);

}  // namespace starattn::kernels
