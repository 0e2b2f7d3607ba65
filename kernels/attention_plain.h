// SPDX-License-Identifier: Apache-2.0
// Attention for GPUs before Hopper: plain CUDA, right first.
#pragma once

#include "attention_sm90.h"

namespace starattn::kernels {

void attention_plain(const AttentionInput& input, const AttentionOutput& output,
                     const KeyPieces& pieces, Stream stream);

}  // namespace starattn::kernels
