// SPDX-License-Identifier: Apache-2.0
// Launches attention for GPUs from compute capability 8.0 on. Arguments are checked by the caller
// (attention.cpp).
#pragma once

#include "attention_work.h"

namespace starattn::kernels {

// Partials of splits come one block's after the other's.
void attention_sm80(const AttentionInput& input, const AttentionOutput& output, const KeyCut& cut,
                    Stream stream);

}  // namespace starattn::kernels
