// SPDX-License-Identifier: Apache-2.0
// Phase 2's last step of attention: each row of a batch of queries over its own query's earlier
// tokens and itself.
#pragma once

#include "attention.h"

namespace starattn::kernels {

inline constexpr int kMaxOwnRows = 128;  // of one launch

// Where a row's query keeps its K and V of one layer.
struct OwnTokens {
  void* k = nullptr;  // bf16 [at least n_before + 1, n_kv_heads, head_dim]
  void* v = nullptr;
  int n_before = 0;  // tokens of the query before this row
};

// Writes row i of k and v (bf16 [n_rows, n_kv_heads, head_dim]) as token n_before of its query.
void store_own_tokens(const void* k, const void* v, const OwnTokens* own, std::int64_t n_rows,
                      const AttentionShape& shape, Stream stream);

// partial <- partial merged with attention of row i over tokens 0 to n_before of its query.
// q bf16 [n_rows, n_heads, head_dim]. Both throw BadShape.
void attend_own_tokens(const void* q, const OwnTokens* own, std::int64_t n_rows,
                       const AttentionShape& shape, float scale, const Partial& partial,
                       Stream stream);

}  // namespace starattn::kernels
