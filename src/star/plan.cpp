// SPDX-License-Identifier: Apache-2.0
#include "star/plan.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "star/auto_setting.h"

namespace starattn {
namespace {

std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

BlockPlan BlockPlan::make(const PlanRequest& request, std::int64_t n_context, int n_ranks,
                          std::int64_t widest_window) {
  STARATTN_CHECK(n_ranks > 0);
  if (n_context <= 0) fail(Exit::bad_data, "the context is empty: there is nothing to ask about");
  if (request.block_size && *request.block_size <= 0) {
    fail(Exit::usage, "--block-size: expected at least 1 token, got {}", *request.block_size);
  }

  BlockPlan plan;
  plan.n_context_ = n_context;
  plan.n_ranks_ = n_ranks;
  switch (request.attention) {
    case Attention::star:
      plan.block_size_ = request.block_size.value_or(auto_block_size(n_context));
      break;
    case Attention::ring:
      plan.block_size_ =
          request.block_size.value_or(divide_up(n_context, 2 * std::int64_t{n_ranks}));
      break;
    case Attention::dense:
      plan.block_size_ = n_context;
      break;
  }
  const bool is_star = request.attention == Attention::star;
  plan.n_blocks_ = divide_up(n_context, plan.block_size_);
  plan.reach_ = is_star ? request.reach.value_or(0) : kReachAll;
  plan.reach_ = std::min(plan.reach_, plan.n_blocks_ - 1);
  plan.recall_ = is_star ? std::min(request.recall.of(plan.block_size_), n_context) : 0;
  plan.anchor_size_ = plan.block_size_;
  if (is_star && request.anchor_size) {
    const bool is_auto = request.anchor_size->n_tokens == kAutoAnchor.n_tokens;
    plan.anchor_size_ = is_auto ? auto_anchor(plan.block_size_, plan.recall_ > 0)
                                : request.anchor_size->of(plan.block_size_);
  }
  Placement placement =
      request.attention == Attention::ring ? Placement::zigzag : Placement::contiguous;
  if (plan.recall_ > 0) {
    placement = Placement::round_robin;
    plan.recall_rows_ = request.recall_rows ? request.recall_rows->of(plan.block_size_)
                                            : auto_recall_rows(plan.block_size_);
  }
  // Blocks advance in waves, because each sees the last tokens of the one before.
  const bool has_halos = widest_window > 0 && plan.n_blocks_ > 1 && plan.reach_ == 0;
  if (has_halos) placement = Placement::round_robin;
  plan.placement_ = request.placement.value_or(placement);

  if (plan.anchor_size_ < 0 || plan.anchor_size_ > plan.block_size_) {
    fail(Exit::usage,
         "--anchor-size: expected 0 to the block size ({} tokens), got {}. The anchor is the first "
         "part of "
         "block 0; raise --block-size or lower --anchor-size",
         with_commas(plan.block_size_), with_commas(plan.anchor_size_));
  }
  if (plan.recall_ > 0 && (plan.recall_rows_ < 1 || plan.recall_rows_ > plan.block_size_)) {
    fail(Exit::usage, "--recall-rows: expected 1 to the block size ({} tokens), got {}",
         with_commas(plan.block_size_), with_commas(plan.recall_rows_));
  }
  if (plan.recall_ > 0 && plan.reach_ > 0 && request.reach)
    fail(Exit::usage, "--recall and --reach: a block either recalls or reaches; leave one out");
  if (plan.recall_ > 0 && plan.placement_ != Placement::round_robin) {
    fail(Exit::usage,
         "--placement: with --recall blocks go round robin over the ranks, because they advance in "
         "waves; leave the option out");
  }
  if (has_halos && plan.placement_ != Placement::round_robin) {
    fail(Exit::usage,
         "--placement: layers of the model have windows, for which blocks go round robin over the "
         "ranks; leave the option out");
  }
  if (has_halos && request.anchor_mode == AnchorMode::recompute) {
    fail(Exit::usage,
         "--anchor recompute: not with a model whose layers have windows, in which no row sees the "
         "anchor; leave the option out");
  }
  if (plan.reach_ > 0 && plan.reach_ < plan.n_blocks_ - 1 &&
      plan.reach_ < divide_up(widest_window - 1, plan.block_size_)) {
    fail(Exit::usage,
         "--reach: layers of the model have windows of {} tokens, which reach back {} blocks of {} "
         "tokens; expected at least so many, or 0, got {}",
         with_commas(widest_window), divide_up(widest_window - 1, plan.block_size_),
         with_commas(plan.block_size_), plan.reach_);
  }
  if (plan.reach_ < 0) fail(Exit::usage, "--reach: expected 0 or more blocks, got {}", plan.reach_);
  return plan;
}

TokenRange BlockPlan::block(BlockId i) const {
  STARATTN_CHECK(i >= 0 && i < n_blocks_);
  const std::int64_t first = i * block_size_;
  return {first, std::min(block_size_, n_context_ - first)};
}

BlockId BlockPlan::first_reached(BlockId i) const {
  return std::max<BlockId>(0, i - reach_);
}

TokenRange BlockPlan::anchor_of(BlockId i) const {
  if (i == 0 || first_reached(i) == 0) return {0, 0};
  return {0, anchor_size_};
}

TokenRange BlockPlan::recallable(BlockId i) const {
  const std::int64_t end = block(i).first_doc;
  if (recall_ == 0 || end <= anchor_size_) return {0, 0};
  return {anchor_size_, end - anchor_size_};
}

std::int64_t BlockPlan::n_recalled(BlockId i) const {
  return std::min(recall_, recallable(i).n_tokens);
}

std::int64_t BlockPlan::n_asking_rows(BlockId i) const {
  return n_recalled(i) == 0 ? 0 : std::min(recall_rows_, block(i).n_tokens);
}

Rank BlockPlan::owner(BlockId i) const {
  STARATTN_CHECK(i >= 0 && i < n_blocks_);
  if (placement_ == Placement::round_robin) return static_cast<Rank>(i % n_ranks_);
  if (placement_ == Placement::zigzag) {
    const std::int64_t k = i % (2 * std::int64_t{n_ranks_});
    return static_cast<Rank>(k < n_ranks_ ? k : 2 * std::int64_t{n_ranks_} - 1 - k);
  }
  // The first n_blocks % n_ranks ranks own one block more: among them block 0's owner, whose first
  // block is the cheapest.
  const std::int64_t base = n_blocks_ / n_ranks_;
  const std::int64_t longer = n_blocks_ % n_ranks_;
  const std::int64_t in_longer = longer * (base + 1);
  if (i < in_longer) return static_cast<Rank>(i / (base + 1));
  return static_cast<Rank>(longer + (i - in_longer) / base);
}

std::vector<BlockId> BlockPlan::blocks_of(Rank rank) const {
  std::vector<BlockId> blocks;
  const auto add = [&](BlockId i) {
    if (i < n_blocks_) blocks.push_back(i);
  };
  const std::int64_t n_ranks = n_ranks_;
  switch (placement_) {
    case Placement::contiguous: {
      const std::int64_t base = n_blocks_ / n_ranks;
      const std::int64_t longer = n_blocks_ % n_ranks;
      const BlockId first = rank * base + std::min<std::int64_t>(rank, longer);
      const std::int64_t n = base + (rank < longer ? 1 : 0);
      for (BlockId i = first; i < first + n; ++i) add(i);
      break;
    }
    case Placement::round_robin:
      for (BlockId i = rank; i < n_blocks_; i += n_ranks) add(i);
      break;
    case Placement::zigzag:
      for (BlockId i = 0; i < n_blocks_; i += 2 * n_ranks) {
        add(i + rank);
        add(i + 2 * n_ranks - 1 - rank);
      }
      break;
  }
  return blocks;
}

std::string BlockPlan::canonical_text() const {
  std::string text =
      fmt::format("block_size={} anchor_size={} reach={}", block_size_, anchor_size_, reach_);
  if (recall_ > 0) {
    text +=
        fmt::format(" recall={} recall_rows={} recall_rule={}", recall_, recall_rows_, kRecallRule);
  }
  return text;
}

}  // namespace starattn
