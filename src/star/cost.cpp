// SPDX-License-Identifier: Apache-2.0
#include "star/cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/text.h"
#include "star/answer.h"
#include "star/context_tail.h"
#include "star/merge_tree.h"
#include "star/recall_choice.h"

namespace starattn {

namespace {

// The weights that a row is multiplied with: in the key and value projections of one layer, and in
// all that a row of the context goes through. The last layer makes keys and values only.
struct RowWeights {
  explicit RowWeights(const ModelConfig& config) {
    const auto hidden = static_cast<double>(config.hidden_size);
    kv = hidden * 2 * static_cast<double>(config.kv_width());
    const double attention = kv + hidden * 2 * static_cast<double>(config.q_width());
    const MixtureConfig& m = config.mixture;
    const std::int64_t experts = m.n_experts + 3 * m.n_chosen * m.expert_size;
    for (std::int64_t i = 0; i + 1 < config.n_layers; ++i) {
      const std::int64_t mixture = config.is_mixture(i) ? experts : 0;
      full_layers += attention + hidden * static_cast<double>(mixture + 3 * config.dense_size(i));
    }
  }
  double kv = 0;
  double full_layers = 0;
};

// Cosines and sines of a row for each RoPE, and those of q where they are its own.
std::int64_t angles_width(const ModelConfig& config) {
  return std::ssize(config.ropes()) * (config.scales_queries() ? 2 : 1) * config.head_dim;
}

// A GPU widens FP8 matrices for products of many rows: one by one, and a layer's experts together.
std::uint64_t widened_matrices(const ModelConfig& config, Dtype activation_dtype) {
  const bool are_f8 = config.fp8.scales != Fp8Config::Scales::none;
  if (activation_dtype == Dtype::f32) return 0;
  const MixtureConfig& m = config.mixture;
  std::int64_t n_out = are_f8 || m.are_f8 ? 3 * m.n_experts * m.expert_size : 0;
  if (are_f8) n_out += std::max(config.widest_dense(), config.q_width());
  return static_cast<std::uint64_t>(config.hidden_size * n_out) * size_of(activation_dtype);
}

// A GPU rounds a chunk's rows for products with FP8 matrices, and where it has no FP8 products
// widens them again.
std::uint64_t rounded_rows(const ModelConfig& config, std::int64_t chunk_rows,
                           Dtype activation_dtype) {
  if (!config.fp8.rounds_rows || activation_dtype == Dtype::f32) return 0;
  const auto width = static_cast<std::uint64_t>(
      std::max({config.hidden_size, config.q_width(), config.widest_dense()}));
  return static_cast<std::uint64_t>(chunk_rows) *
         (width * (1 + size_of(activation_dtype)) + sizeof(float));
}

// Keys and values of a chunk's rows before they are kept in FP8.
std::uint64_t unrounded_kv(const ModelConfig& config, std::int64_t chunk_rows, Dtype kv_dtype,
                           Dtype activation_dtype) {
  if (kv_dtype != Dtype::f8) return 0;
  return static_cast<std::uint64_t>(2 * chunk_rows * config.kv_width()) * size_of(activation_dtype);
}

// A GPU widens the keys and values that rows of phase 1 attend to: an anchor and a block, or blocks
// in reach one by one.
std::uint64_t widened_kv(const ModelConfig& config, const BlockPlan& plan, std::int64_t n_longest,
                         Dtype kv_dtype, Dtype activation_dtype) {
  if (kv_dtype != Dtype::f8 || activation_dtype == Dtype::f32) return 0;
  const std::int64_t n_halo =
      std::min(std::max<std::int64_t>(0, config.widest_window() - 1), plan.n_context());
  const std::int64_t n_before = plan.n_blocks() == 1 ? 0 : std::max(plan.anchor_size(), n_halo);
  return static_cast<std::uint64_t>(n_before + n_longest) *
         config.kv_bytes_per_token(activation_dtype) / static_cast<std::uint64_t>(config.n_layers);
}

// Values that a row's feed forward takes while it is at work.
std::int64_t feed_forward_width(const ModelConfig& config) {
  const MixtureConfig& m = config.mixture;
  const std::int64_t mixture = m.n_chosen * (config.hidden_size + 2 * m.expert_size);
  return 2 * config.widest_dense() + mixture;
}

// Layers without a window, of those in which rows of the context attend: all but the last.
std::int64_t n_full_layers(const ModelConfig& config) {
  std::int64_t n = 0;
  for (std::int64_t i = 0; i + 1 < config.n_layers; ++i) n += config.has_window(i) ? 0 : 1;
  return n;
}

// Pairs of a row of these and a token that it sees through a window.
double pairs_through(std::int64_t window, TokenRange rows) {
  const auto first = static_cast<double>(rows.first_doc), n = static_cast<double>(rows.n_tokens);
  const auto widest = static_cast<double>(window);
  const double n_growing = std::clamp(widest - 1 - first, 0.0, n);  // that see every token
  return n_growing * (2 * first + n_growing + 1) / 2 + (n - n_growing) * widest;
}

// Of all windows.
double pairs_through_windows(const ModelConfig& config, TokenRange rows) {
  double sum = 0;
  for (std::int64_t i = 0; i + 1 < config.n_layers; ++i)
    if (config.has_window(i)) sum += pairs_through(config.layer(i).window, rows);
  return sum;
}

// Whether blocks advance in waves for the sake of windows.
bool has_halos(const ModelConfig& config, const BlockPlan& plan) {
  return config.widest_window() > 0 && plan.n_blocks() > 1 && plan.reach() == 0;
}

Phase1Flops block_flops(const ModelConfig& config, const BlockPlan& plan, AnchorMode anchor_mode,
                        BlockId i) {
  const RowWeights weights(config);
  const auto full_layers = static_cast<double>(n_full_layers(config));
  const auto rows = static_cast<double>(plan.block(i).n_tokens);
  const auto anchor = static_cast<double>(plan.anchor_of(i).n_tokens);
  const std::int64_t reached =
      plan.block(i).first_doc - plan.block(plan.first_reached(i)).first_doc;
  const double before = anchor + static_cast<double>(reached + plan.n_recalled(i));
  const double attention = 4 * static_cast<double>(config.q_width()) * full_layers;

  Phase1Flops flops;
  flops.linear = 2 * rows * (weights.full_layers + weights.kv);
  flops.attention =
      attention * (rows * before + rows * (rows + 1) / 2) +
      4 * static_cast<double>(config.q_width()) * pairs_through_windows(config, plan.block(i));
  // Beside what may be recalled, the anchor and a sample of the block say what is ordinary.
  flops.asking = attention / 2 * static_cast<double>(plan.n_asking_rows(i)) *
                 (static_cast<double>(plan.recallable(i).n_tokens) + anchor + rows / kSampleStride);
  if (anchor_mode == AnchorMode::recompute && plan.reach() == 0) {
    flops.linear += 2 * anchor * weights.full_layers;
    flops.attention += attention * anchor * (anchor + 1) / 2;
  }
  return flops;
}

// The rows before a block that its rows see through windows, and their numbers.
std::uint64_t halo_workspace(const ModelConfig& config, const BlockPlan& plan, Dtype kv_dtype) {
  if (!has_halos(config, plan)) return 0;
  const KvLayout layout{kv_dtype, config.n_kv_heads, config.head_dim};
  return static_cast<std::uint64_t>(std::min(config.widest_window() - 1, plan.n_context())) *
         (2 * layout.row_bytes() + sizeof(std::int32_t));
}

// One block's unfinished attention while its recalled keys are on their way; those keys and values,
// as they arrive and in order, and as they leave to another rank; asking rows and candidates of all
// blocks of a wave.
std::uint64_t recall_workspace(const ModelConfig& config, const BlockPlan& plan,
                               std::int64_t n_longest, std::uint64_t partial, Dtype kv_dtype,
                               Dtype activation_dtype) {
  const auto q_row = static_cast<std::uint64_t>(config.q_width()) * size_of(activation_dtype);
  const std::uint64_t kv_row =
      config.kv_bytes_per_token(kv_dtype) / static_cast<std::uint64_t>(config.n_layers);
  const auto n_asking =
      static_cast<std::uint64_t>(std::min<std::int64_t>(plan.n_ranks(), plan.n_blocks()));
  const auto n_recalled = static_cast<std::uint64_t>(plan.n_recalled(plan.n_blocks() - 1));
  const std::uint64_t ask = static_cast<std::uint64_t>(plan.recall_rows()) *
                            (q_row + static_cast<std::uint64_t>(config.n_heads) * sizeof(float));
  const std::uint64_t candidates = n_recalled * (sizeof(float) + sizeof(std::int32_t));
  return static_cast<std::uint64_t>(n_longest) * partial +
         (plan.n_ranks() > 1 ? n_asking + 1 : 1) * n_recalled * kv_row +
         n_asking * (ask + candidates) +
         static_cast<std::uint64_t>(plan.n_context()) * sizeof(float);
}

}  // namespace

Phase1Flops phase1_flops(const ModelConfig& config, const BlockPlan& plan, AnchorMode anchor_mode) {
  Phase1Flops sum;
  for (BlockId i = 0; i < plan.n_blocks(); ++i) {
    const Phase1Flops block = block_flops(config, plan, anchor_mode, i);
    sum.linear += block.linear;
    sum.attention += block.attention;
    sum.asking += block.asking;
  }
  return sum;
}

StepBytes step_bytes(const ModelConfig& config, const BlockPlan& plan, Dtype weight_dtype,
                     Dtype kv_dtype) {
  const auto head = static_cast<std::uint64_t>(config.vocab_size * config.hidden_size);
  const std::uint64_t of_layers =
      n_parameters_of_a_row(config) - head * (config.tied_embeddings ? 1 : 2);
  std::uint64_t n_f8 = 0;
  if (config.fp8.scales != Fp8Config::Scales::none)
    n_f8 = of_layers;
  else if (config.mixture.are_f8)
    n_f8 = n_expert_parameters(config, config.mixture.n_chosen);
  StepBytes bytes;
  bytes.weights = (head + of_layers - n_f8) * size_of(weight_dtype) + n_f8;
  for (Rank rank = 0; rank < plan.n_ranks(); ++rank) {
    std::int64_t n_tokens = 0;
    for (const BlockId i : plan.blocks_of(rank)) n_tokens += plan.block(i).n_tokens;
    const std::uint64_t of_token = config.kv_bytes_per_token(kv_dtype) /
                                   static_cast<std::uint64_t>(config.n_layers) *
                                   static_cast<std::uint64_t>(config.n_layers - config.n_windows());
    std::uint64_t n_bytes = static_cast<std::uint64_t>(n_tokens) * of_token;
    if (rank == 0) n_bytes += ContextTail::n_bytes(config, plan.n_context(), kv_dtype);
    bytes.kv = std::max(bytes.kv, n_bytes);
  }
  return bytes;
}

double slowest_rank_flops(const ModelConfig& config, const BlockPlan& plan,
                          AnchorMode anchor_mode) {
  std::vector<double> ranks(static_cast<std::size_t>(plan.n_ranks()), 0.0);
  for (BlockId i = 0; i < plan.n_blocks(); ++i) {
    ranks[static_cast<std::size_t>(plan.owner(i))] +=
        block_flops(config, plan, anchor_mode, i).total();
  }
  return *std::max_element(ranks.begin(), ranks.end());
}

std::vector<MemoryNeed> memory_needs(const ModelConfig& config, const BlockPlan& plan,
                                     AnchorMode anchor_mode, std::uint64_t weight_bytes,
                                     Dtype kv_dtype, Dtype activation_dtype,
                                     std::int64_t chunk_rows, KvMemory kv_memory) {
  std::vector<MemoryNeed> needs;
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
    if (kv_memory == KvMemory::host) {
      need.host_kv = need.own_kv;
      need.own_kv = 2 * need.host_kv / static_cast<std::uint64_t>(config.n_layers);
    }
    if (needs_anchor && !is_root && plan.reach() == 0) {
      need.anchor = static_cast<std::uint64_t>(plan.anchor_size()) *
                    config.kv_bytes_per_token(kv_dtype) /
                    static_cast<std::uint64_t>(config.n_layers) *
                    static_cast<std::uint64_t>(n_full_layers(config));
    }
    const auto element = static_cast<std::uint64_t>(size_of(activation_dtype));
    const auto row =
        static_cast<std::uint64_t>(2 * config.hidden_size + feed_forward_width(config) +
                                   2 * config.q_width() + 2 * config.kv_width()) *
        element;
    const auto partial =
        static_cast<std::uint64_t>(config.q_width() + 2 * config.n_heads) * sizeof(float);
    need.workspace = static_cast<std::uint64_t>(chunk_rows) * (row + partial) +
                     unrounded_kv(config, chunk_rows, kv_dtype, activation_dtype) +
                     widened_matrices(config, activation_dtype) +
                     rounded_rows(config, chunk_rows, activation_dtype) +
                     widened_kv(config, plan, n_longest, kv_dtype, activation_dtype);
    const auto resident = static_cast<std::uint64_t>(config.hidden_size) * element +
                          static_cast<std::uint64_t>(angles_width(config)) * sizeof(float);
    need.workspace += halo_workspace(config, plan, kv_dtype);
    if (plan.recall() > 0 || has_halos(config, plan)) {
      need.workspace += static_cast<std::uint64_t>(n_longest) *
                        (resident + static_cast<std::uint64_t>(config.q_width()) * element);
    }
    if (plan.recall() > 0) {
      need.workspace +=
          recall_workspace(config, plan, n_longest, partial, kv_dtype, activation_dtype);
      if (kv_memory == KvMemory::host)  // two layers of all own keys, for others and itself
        need.own_kv += need.host_kv / static_cast<std::uint64_t>(config.n_layers);
    } else if (plan.reach() == 0 && !has_halos(config, plan)) {
      need.workspace += static_cast<std::uint64_t>(n_longest) * resident;
    } else if (plan.reach() > 0) {
      // Residual, queries and unfinished attention of all own rows, and three blocks in flight.
      // What a chunk adds to its unfinished attention is the partial counted above.
      need.workspace +=
          static_cast<std::uint64_t>(n_own) *
          (resident + static_cast<std::uint64_t>(config.q_width()) * element + partial);
      need.workspace +=
          3 * static_cast<std::uint64_t>(std::min(plan.block_size(), plan.n_context())) *
          config.kv_bytes_per_token(kv_dtype) / static_cast<std::uint64_t>(config.n_layers);
    }
    needs.push_back(need);
  }
  return needs;
}

namespace {

// Partials of all rows that a rank holds at most while it attends to its blocks.
std::int64_t n_partials_at_most(const std::vector<BlockId>& blocks) {
  std::size_t most = 0;
  std::vector<std::pair<MergeNode, char>> before;
  for (std::size_t first = 0; first < blocks.size(); first += ContextAttention::kBlocksAtOnce) {
    const std::size_t n = std::min(ContextAttention::kBlocksAtOnce, blocks.size() - first);
    most = std::max(most, before.size() + n);
    for (const BlockId block : std::span(blocks).subspan(first, n))
      push_subtree<char>(before, {0, block}, '\0', [](char&, char&) {});
  }
  return static_cast<std::int64_t>(most);
}

// A GPU has the exponents of FP8 keys and values a second time while it answers (kv_prefetch.h);
// not of those in host memory, for which this is too much.
std::int64_t laid_out_exponents(const ModelConfig& config, const BlockPlan& plan, Rank rank,
                                Dtype kv_dtype, Dtype activation_dtype) {
  if (kv_dtype != Dtype::f8 || activation_dtype == Dtype::f32) return 0;
  constexpr std::int64_t kAlike = 32;  // tokens, whose number is rounded up to that
  std::int64_t n_tokens = 0;
  for (const BlockId i : plan.blocks_of(rank))
    n_tokens += (plan.block(i).n_tokens + kAlike - 1) / kAlike * kAlike;
  return 2 * config.n_layers * config.n_kv_heads * n_tokens;
}

}  // namespace

std::vector<std::uint64_t> answer_workspaces(const ModelConfig& config, const BlockPlan& plan,
                                             AnswerLayout layout, Dtype kv_dtype,
                                             Dtype activation_dtype, std::int64_t chunk_rows) {
  const std::int64_t n_ranks = plan.n_ranks();
  const std::int64_t n_rows = layout.spread_queries && !layout.has_shares()
                                  ? std::max<std::int64_t>(1, Answerer::kMaxRows / n_ranks)
                                  : Answerer::kMaxRows;
  const std::int64_t n_all_rows = std::max<std::int64_t>(Answerer::kMaxRows, n_ranks);
  const auto element = static_cast<std::int64_t>(size_of(activation_dtype));
  const auto f32 = static_cast<std::int64_t>(sizeof(float));
  const std::int64_t partial_row = (config.q_width() + 2 * config.n_heads) * f32;
  const std::int64_t of_phase1 =
      std::max(chunk_rows, Answerer::kMaxRows) *
          ((2 * (config.hidden_size + config.q_width()) + feed_forward_width(config)) * element +
           partial_row) +
      static_cast<std::int64_t>(unrounded_kv(config, chunk_rows, kv_dtype, activation_dtype));
  const std::int64_t of_rows =
      n_rows * ((config.hidden_size + 2 * config.q_width() + 2 * config.kv_width()) * element +
                (angles_width(config) + config.vocab_size) * f32);
  const std::int64_t n_shares = std::max(1, layout.n_shares);
  const std::int64_t inner =
      config.widest_dense() + config.mixture.n_chosen * config.mixture.expert_size;
  // What ranks exchange passes through links between GPUs, or on a CPU through memory of its own.
  const bool is_host = activation_dtype == Dtype::f32;
  const std::int64_t of_links =
      is_host ? n_rows * config.vocab_size / n_shares * f32
              : 4 * n_shares * static_cast<std::int64_t>(PeerLinks::kMostBytes);
  const std::int64_t of_shares =  // star/sharded_forward.cpp, model/sharded_decoder.h
      n_rows *
          ((2 * config.hidden_size + inner + config.q_width() +
            2 * (config.hidden_size + inner + config.q_width() + config.kv_width()) / n_shares) *
               element +
           (angles_width(config) + config.vocab_size + config.vocab_size / n_shares) * f32) +
      of_links;
  std::vector<std::int64_t> n_subtrees;
  for (Rank rank = 0; rank < n_ranks; ++rank)
    n_subtrees.push_back(std::ssize(subtrees_of(plan.blocks_of(rank), plan.n_blocks())));
  const std::int64_t n_all_subtrees =
      std::accumulate(n_subtrees.begin(), n_subtrees.end(), std::int64_t{0});

  std::vector<std::uint64_t> needs;
  for (Rank rank = 0; rank < n_ranks; ++rank) {
    const bool has_queries = layout.spread_queries || layout.has_shares() || rank == 0;
    std::int64_t n_bytes = of_phase1 + (layout.has_shares() ? of_shares : of_rows);
    if (has_queries && config.n_windows() > 0) {
      n_bytes +=
          static_cast<std::int64_t>(ContextTail::n_bytes(config, plan.n_context(), kv_dtype)) +
          n_rows * partial_row;
    }
    n_bytes += laid_out_exponents(config, plan, rank, kv_dtype, activation_dtype);
    n_bytes += n_partials_at_most(plan.blocks_of(rank)) * n_all_rows * partial_row;
    if (n_ranks > 1) n_bytes += n_all_rows * config.q_width() * element;
    if (n_ranks > 1 && layout.tree_merge) n_bytes += 2 * n_all_rows * partial_row;
    if (layout.has_shares()) {
      n_bytes += (is_host ? 2 : 1) * n_all_subtrees * n_rows * partial_row / n_shares;
    } else if (has_queries && !layout.tree_merge) {
      const std::int64_t n_others = n_all_subtrees - n_subtrees[static_cast<std::size_t>(rank)];
      n_bytes += n_others * n_rows * partial_row;
    }
    needs.push_back(static_cast<std::uint64_t>(n_bytes));
  }
  return needs;
}

std::uint64_t query_kv_bytes(const ModelConfig& config, std::int64_t n_query_tokens,
                             std::int64_t max_new_tokens, Dtype activation_dtype, int n_shares) {
  const auto n_kv_heads = static_cast<std::uint64_t>(config.n_kv_heads);
  const auto n = static_cast<std::uint64_t>(std::max(1, n_shares));
  const std::uint64_t n_most = (n_kv_heads + n - 1) / n;
  return static_cast<std::uint64_t>(n_query_tokens + max_new_tokens) *
         config.kv_bytes_per_token(activation_dtype) / n_kv_heads * n_most;
}

const MemoryNeed& fullest(const std::vector<MemoryNeed>& needs) {
  return *std::ranges::max_element(needs, {}, &MemoryNeed::total);
}

std::string MemoryNeed::arithmetic() const {
  return fmt::format("weights {} + {} {} + anchor {} + workspace {} = {}{}", human_bytes(weights),
                     host_kv > 0 ? "two layers of own KV" : "own KV", human_bytes(own_kv),
                     human_bytes(anchor), human_bytes(workspace), human_bytes(total()),
                     host_kv > 0 ? ", and own KV " + human_bytes(host_kv) + " in host memory" : "");
}

}  // namespace starattn
