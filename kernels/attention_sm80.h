// SPDX-License-Identifier: Apache-2.0
// Launches attention for GPUs from compute capability 8.0 on. Arguments are checked by the caller
// (attention.cpp).
#pragma once

#include "attention_work.h"

namespace starattn::kernels {

void attention_sm80(const AttentionInput& input, const AttentionOutput& output,
                    const KeyPieces& pieces, Stream stream);

}  // namespace starattn::kernels
