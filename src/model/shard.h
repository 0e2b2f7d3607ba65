// SPDX-License-Identifier: Apache-2.0
// How the ranks of a node share out a model's weights: by output columns of its matrices, those of
// every expert too, so that no sum crosses ranks and a column has the same bits wherever it is
// computed. So each reads its part of whichever experts a row takes.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/shared_layers.h"
#include "base/rank.h"
#include "model/config.h"
#include "model/weights.h"

namespace starattn {

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
  std::vector<Share> of_expert;     // the same of every expert, where layers are mixtures
  std::vector<Share> of_shared;     // and of the expert that every row takes
  std::vector<Share> vocab;         // of the LM head
};

// The same as a backend keeps it.
SharedModel shared_model(const ModelWeights& weights, const ShardPlan& plan, std::int64_t head_dim);
// Bytes of all weights on a rank's device then: its rows, two whole layers, and what is not shared.
std::uint64_t shared_bytes(const ModelWeights& weights, const SharedModel& model,
                           const Backend& backend, Rank rank);

// Matrices that a device fetches layer by layer where it keeps none (Backend::stream_layers), and
// the bytes of all weights on it then.
std::vector<std::vector<WeightView>> layer_matrices(const ModelWeights& weights);
std::uint64_t streamed_bytes(const ModelWeights& weights, const Backend& backend);

}  // namespace starattn
