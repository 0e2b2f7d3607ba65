// SPDX-License-Identifier: Apache-2.0
// Kernels over partials, one (row, head) pair a "value row": o [n, head_dim], m [n], l [n].
#pragma once

#include "attention.h"

namespace starattn::kernels {

// result = piece 0 merged with piece 1, 2, ... in this order; parts: o [n_pieces, n, head_dim].
void merge_pieces(const Partial& parts, int n_pieces, const Partial& result, std::int64_t n,
                  int head_dim, Stream stream);
// into = into merged with from.
void merge_two(const Partial& into, const Partial& from, std::int64_t n, int head_dim,
               Stream stream);
void finish_rows(const Partial& partial, std::int64_t n, int head_dim, void* out, Stream stream);

}  // namespace starattn::kernels
