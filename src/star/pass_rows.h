// SPDX-License-Identifier: Apache-2.0
// What one pass through the network needs to know of its rows: their tokens, where these stand, and
// where their queries keep keys and values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backend/tensors.h"
#include "star/kv.h"

namespace starattn {

struct PassRows {
  struct Row {
    const KvCache* own = nullptr;  // of the row's query
    std::int64_t n_before = 0;     // tokens of the query before this row
    std::int64_t n_beside = 0;     // of them: the rows just before this one in the same pass
  };

  std::vector<Row> rows;
  const Token* tokens = nullptr;  // of each row, on the device
  bool is_ahead = false;          // of the host, which does not know the tokens yet

  std::int64_t n() const { return std::ssize(rows); }
  // In the document, whose context has n_context tokens.
  std::vector<std::int64_t> positions(std::int64_t n_context) const {
    std::vector<std::int64_t> positions;
    for (const Row& row : rows) positions.push_back(n_context + row.n_before);
    return positions;
  }
  // Where K and V of one layer belong. window: tokens that a row sees in the layer, itself the last
  // of them.
  std::vector<OwnTokens> own_tokens(std::int64_t layer, std::int64_t window = INT64_MAX) const {
    std::vector<OwnTokens> own;
    for (const Row& row : rows) {
      const std::int64_t first = std::max<std::int64_t>(0, row.n_before - window + 1);
      own.push_back({row.own->k_rows(layer, first, 1).data, row.own->v_rows(layer, first, 1).data,
                     row.n_before - first, std::min(row.n_beside, row.n_before - first)});
    }
    return own;
  }
};

}  // namespace starattn
