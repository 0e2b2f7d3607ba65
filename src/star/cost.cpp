// SPDX-License-Identifier: Apache-2.0
#include "star/cost.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace starattn {

Phase1Flops phase1_flops(const ModelConfig& config, const BlockPlan& plan, AnchorMode anchor_mode) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto q_width = static_cast<double>(config.q_width());
  const auto kv_width = static_cast<double>(config.kv_width());
  const auto full_layers = static_cast<double>(config.n_layers - 1);
  const double weights_kv = hidden * 2 * kv_width;
  const double weights_layer = hidden * q_width * 2 + weights_kv +
                               3 * hidden * static_cast<double>(config.intermediate_size);

  Phase1Flops flops;
  const auto n_tokens = static_cast<double>(plan.n_context());
  flops.linear = 2 * n_tokens * (full_layers * weights_layer + weights_kv);
  flops.attention = 4 * q_width * full_layers * plan.n_attention_pairs();
  if (anchor_mode == AnchorMode::recompute && plan.reach() == 0) {
    const auto again = static_cast<double>(plan.n_blocks() - 1);
    const auto anchor = static_cast<double>(plan.anchor_size());
    // The anchor's own last full layer is needed for its keys and values only, too.
    const double layers = std::max(0.0, full_layers);
    flops.linear += again * 2 * anchor * layers * weights_layer;
    flops.attention += again * 4 * q_width * layers * anchor * (anchor + 1) / 2;
  }
  return flops;
}

MemoryNeed memory_need(const ModelConfig& config, const BlockPlan& plan, AnchorMode anchor_mode,
                       std::uint64_t weight_bytes, Dtype kv_dtype, Dtype activation_dtype,
                       std::int64_t chunk_rows) {
  MemoryNeed worst;
  for (Rank rank = 0; rank < plan.n_ranks(); ++rank) {
    MemoryNeed need;
    need.weights = weight_bytes;
    std::int64_t n_own = 0;
    std::int64_t n_longest = 0;
    bool needs_anchor = false;
    for (const BlockId i : plan.blocks_of(rank)) {
      n_own += plan.block(i).n_tokens;
      n_longest = std::max(n_longest, plan.block(i).n_tokens);
      needs_anchor |= plan.anchor_of(i).n_tokens > 0;
    }
    const bool is_root = plan.owner(0) == rank && anchor_mode == AnchorMode::broadcast;
    need.own_kv = static_cast<std::uint64_t>(n_own) * config.kv_bytes_per_token(kv_dtype);
    if (needs_anchor && !is_root && plan.reach() == 0) {
      need.anchor = static_cast<std::uint64_t>(plan.anchor_size()) *
                    config.kv_bytes_per_token(kv_dtype) /
                    static_cast<std::uint64_t>(config.n_layers) *
                    static_cast<std::uint64_t>(config.n_layers - 1);
    }
    const auto element = static_cast<std::uint64_t>(size_of(activation_dtype));
    const auto row =
        static_cast<std::uint64_t>(2 * config.hidden_size + 2 * config.intermediate_size +
                                   2 * config.q_width() + 2 * config.kv_width()) *
        element;
    const auto partial =
        static_cast<std::uint64_t>(config.q_width() + 2 * config.n_heads) * sizeof(float);
    need.workspace = static_cast<std::uint64_t>(chunk_rows) * (row + partial);
    const auto resident = static_cast<std::uint64_t>(config.hidden_size) * element +
                          static_cast<std::uint64_t>(config.head_dim) * sizeof(float);
    if (plan.reach() == 0) {
      need.workspace += static_cast<std::uint64_t>(n_longest) * resident;
    } else {
      // Residual, queries and unfinished attention of all own rows, and three blocks in flight.
      need.workspace +=
          static_cast<std::uint64_t>(n_own) *
          (resident + static_cast<std::uint64_t>(config.q_width()) * element + partial);
      need.workspace +=
          3 * static_cast<std::uint64_t>(std::min(plan.block_size(), plan.n_context())) *
          config.kv_bytes_per_token(kv_dtype) / static_cast<std::uint64_t>(config.n_layers);
    }
    if (need.total() > worst.total()) worst = need;
  }
  return worst;
}

std::string MemoryNeed::arithmetic() const {
  return fmt::format("weights {} + own KV {} + anchor {} + workspace {} = {}", human_bytes(weights),
                     human_bytes(own_kv), human_bytes(anchor), human_bytes(workspace),
                     human_bytes(total()));
}

}  // namespace starattn
