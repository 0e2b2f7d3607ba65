// SPDX-License-Identifier: Apache-2.0
// Kernels over partials, one (row, head) pair a "value row": o [n, head_dim], m [n], l [n].
#pragma once

#include "attention.h"

namespace starattn::kernels {

// The pieces of several blocks, one block's after the other's, and where each block's result goes.
struct BlockPieces {
  int n_blocks = 0;
  int n_pieces[kMaxSegments] = {};
  Partial results[kMaxSegments];
};

// A block's result = its piece 0 merged with piece 1, 2, ... in this order; parts: o [all pieces,
// n, head_dim].
void merge_pieces(const Partial& parts, const BlockPieces& blocks, std::int64_t n, int head_dim,
                  Stream stream);
// into = into merged with from.
void merge_two(const Partial& into, const Partial& from, std::int64_t n, int head_dim,
               Stream stream);
void finish_rows(const Partial& partial, std::int64_t n, int head_dim, void* out, Stream stream);

}  // namespace starattn::kernels
