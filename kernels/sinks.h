// SPDX-License-Identifier: Apache-2.0
// Learned sinks of attention: a score of each head that has no value.
#pragma once

#include <cstdint>

#include "attention.h"

namespace starattn::kernels {

// partial [n_rows, n_heads] <- partial merged with (0, sink, 1). sinks: bf16 [n_heads].
// Asynchronous on `stream`.
void merge_sinks(const Partial& partial, const void* sinks, std::int64_t n_rows,
                 const AttentionShape& shape, Stream stream);

}  // namespace starattn::kernels
