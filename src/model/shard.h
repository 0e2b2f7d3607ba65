// SPDX-License-Identifier: Apache-2.0
// How the ranks of a node share out a model's weights: by output columns of its matrices, so that
// no sum crosses ranks and a column has the same bits wherever it is computed.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace starattn {

// Consecutive numbers from `first` on.
struct Share {
  std::int64_t first = 0;
  std::int64_t count = 0;

  std::int64_t end() const { return first + count; }
};

// Attention heads of one rank, and the KV heads that these read. Where there are more ranks than KV
// heads, ranks that read the same one have parts of its heads, and some may have none.
struct HeadShare {
  Share heads;
  Share kv_heads;
};

// What every rank has, by rank: shares are ascending and leave nothing out, and any may be empty.
struct ShardPlan {
  // Heads stay whole, for RoPE and the norms of q and k need them; other columns come in units of
  // 16. n_ranks >= 1 need divide nothing.
  static ShardPlan make(const ModelConfig& config, int n_ranks);

  std::vector<HeadShare> heads;
  std::vector<Share> hidden;        // columns of o and down
  std::vector<Share> intermediate;  // columns of gate and up
  std::vector<Share> vocab;         // of the LM head
};

}  // namespace starattn
