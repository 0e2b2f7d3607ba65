// SPDX-License-Identifier: Apache-2.0
#include "star/context_attention.h"

#include <algorithm>
#include <numeric>

#include "trace/range.h"

namespace starattn {
namespace {

constexpr int kSubtreeTag = 111;

std::vector<std::vector<MergeNode>> subtrees_by_rank(const BlockPlan& plan, int n_ranks) {
  std::vector<std::vector<MergeNode>> all;
  for (Rank rank = 0; rank < n_ranks; ++rank)
    all.push_back(subtrees_of(plan.blocks_of(rank), plan.n_blocks()));
  return all;
}

bool have_few_blocks(const BlockPlan& plan, int n_ranks) {
  std::size_t most = 0;
  for (Rank rank = 0; rank < n_ranks; ++rank) most = std::max(most, plan.blocks_of(rank).size());
  return most <= ContextAttention::kBlocksAtOnce;
}

// What leaves all blocks merged in the first, along the canonical tree.
std::vector<Merge> merges_of_all(std::int64_t n_blocks) {
  std::vector<BlockId> blocks(static_cast<std::size_t>(n_blocks));
  std::iota(blocks.begin(), blocks.end(), BlockId{0});
  std::vector<Merge> merges;
  const auto merge = [&](int& into, int& from) { merges.push_back({into, from}); };
  std::vector<std::pair<MergeNode, int>> subtrees = merge_subtrees<int>(
      blocks, [](BlockId block) { return static_cast<int>(block); }, merge);
  merge_to_root<int>(subtrees, n_blocks, merge);
  return merges;
}

}  // namespace

ContextAttention::ContextAttention(Backend& backend, StepExchange& exchange, const DocumentKv& kv,
                                   std::int64_t n_layers, const AttentionShape& shape,
                                   bool merge_by_rank)
    : backend_(&backend),
      exchange_(&exchange),
      group_(&exchange.group()),
      kv_(&kv),
      prefetch_(backend, sources_of(kv), n_layers),
      shape_(shape),
      merge_by_rank_(merge_by_rank && group_->size() > 1),
      are_few_blocks_(have_few_blocks(kv.plan, group_->size())),
      subtrees_by_rank_(subtrees_by_rank(kv.plan, group_->size())) {
  std::vector<Subtree> all;
  for (const std::vector<MergeNode>& nodes : subtrees_by_rank_)
    for (const MergeNode& node : nodes) all.emplace_back(node, static_cast<int>(all.size()));
  std::ranges::sort(all, {}, [](const Subtree& entry) { return entry.first.first_block(); });
  merge_to_root<int>(all, kv.plan.n_blocks(), [&](int& into, int& from) {
    merges_to_root_.push_back({into, from});
  });
  root_ = static_cast<std::size_t>(all.front().second);
  if (can_finish()) merges_alone_ = merges_of_all(kv.plan.n_blocks());
}

void ContextAttention::start() {
  std::vector<std::int64_t> n_parts;
  for (const auto& subtrees : subtrees_by_rank_) n_parts.push_back(std::ssize(subtrees));
  exchange_->start_document(std::move(n_parts));
  prefetch_.lay_out_exponents(shape_);
  backend_->synchronize();  // attend_blocks() needs keys and values at rest
}

PartialTree ContextAttention::attend(std::int64_t layer, Rows q, bool own_tokens_next) {
  const Rows all_q = exchange_->share(q);
  const std::vector<Subtree> mine =
      attend_to_blocks(layer, all_q, own_tokens_next && are_few_blocks_ && !merge_by_rank_);
  const trace::Range range("gather and merge");
  if (merge_by_rank_) return {{merge_along_tree(mine)}, {}, 0};
  std::vector<Partial> own;
  for (const auto& [node, part] : mine) own.push_back(partial(part));
  return {exchange_->collect(own), merges_to_root_, root_};
}

void ContextAttention::finish(std::int64_t layer, Rows q, Rows k, Rows v,
                              std::span<const OwnTokens> own, Rows out) {
  STARATTN_CHECK(can_finish());
  const Rows all_q = exchange_->share(q);
  const trace::Range range("partial attention");
  const std::span<const KvSegment> blocks = prefetch_.layer(layer);
  while (partials_.size() < blocks.size())
    partials_.emplace_back(*backend_, exchange_->max_rows(), shape_);
  PartialTree context{{}, merges_alone_, 0};
  for (int i = 0; i < std::ssize(blocks); ++i) context.parts.push_back(partial(i));
  backend_->attend_blocks_and_own(all_q, k, v, blocks, context, own, shape_, out);
}

std::vector<ContextAttention::Subtree> ContextAttention::attend_to_blocks(std::int64_t layer,
                                                                          Rows all_q,
                                                                          bool announces) {
  const trace::Range range("partial attention");
  const std::vector<BlockId> blocks = kv_->plan.blocks_of(group_->rank());
  const std::span<const KvSegment> segments = prefetch_.layer(layer);
  free_.clear();
  for (std::size_t i = partials_.size(); i-- > 0;) free_.push_back(static_cast<int>(i));
  std::vector<Subtree> done;
  for (std::size_t first = 0; first < blocks.size(); first += kBlocksAtOnce) {
    const std::size_t n = std::min(kBlocksAtOnce, blocks.size() - first);
    std::vector<Partial> parts;
    std::vector<int> numbers;  // of these parts among all
    for (std::size_t i = 0; i < n; ++i) {
      numbers.push_back(take_partial());
      parts.push_back(partial(numbers.back()));
    }
    std::vector<Merge> merges;
    int n_made = 0;
    const auto subtrees = merge_subtrees<int>(
        std::span(blocks).subspan(first, n), [&](BlockId) { return n_made++; },
        [&](int& a, int& b) {
          merges.push_back({a, b});
          free_.push_back(numbers[static_cast<std::size_t>(b)]);
        });
    if (announces) {
      std::vector<Partial> made;
      for (const auto& [node, i] : subtrees) made.push_back(parts[static_cast<std::size_t>(i)]);
      exchange_->announce_parts(made);
    }
    backend_->attend_blocks(all_q, segments.subspan(first, n), shape_, merges, parts);
    for (const auto& [node, i] : subtrees) {
      push_subtree<int>(done, node, numbers[static_cast<std::size_t>(i)], [&](int& a, int& b) {
        backend_->merge(partial(a), partial(b), shape_);
        free_.push_back(b);
      });
    }
  }
  return done;
}

int ContextAttention::take_partial() {
  if (free_.empty()) {
    free_.push_back(static_cast<int>(partials_.size()));
    partials_.emplace_back(*backend_, exchange_->max_rows(), shape_);
  }
  const int part = free_.back();
  free_.pop_back();
  return part;
}

// The same tree with the same bits, for many ranks: a node is merged where its first block lives,
// and the root's owner hands each query rank its rows. Nobody receives more than log2(blocks)
// messages a node, where a gather would bring all of them to one rank.
Partial ContextAttention::merge_along_tree(std::vector<Subtree> mine) {
  const std::int64_t n_blocks = kv_->plan.n_blocks();
  const std::int64_t n_all = exchange_->n_rows();
  const std::size_t node_bytes = PartialBuffer::n_bytes(n_all, shape_);
  const auto holder = [&](MergeNode node) { return kv_->plan.owner(node.first_block()); };
  const auto is_whole = [&](MergeNode node) {  // one rank made this subtree by itself
    const auto& nodes = subtrees_by_rank_[static_cast<std::size_t>(holder(node))];
    return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
  };
  const auto position = [&](MergeNode node) {
    return std::find_if(mine.begin(), mine.end(),
                        [&](const auto& entry) { return entry.first == node; });
  };
  const auto partial_of = [&](MergeNode node) { return partial(position(node)->second); };
  const std::function<void(MergeNode)> reduce = [&](MergeNode node) {
    if (is_whole(node)) return;
    reduce(node.left());
    const bool has_right = node.right().first_block() < n_blocks;
    if (has_right) reduce(node.right());
    const Rank here = holder(node);
    const Rank there = has_right ? holder(node.right()) : here;
    if (has_right && there == group_->rank() && there != here) {
      std::vector<std::byte> message(node_bytes);
      download(*backend_, partial_of(node.right()), shape_, message);
      trace::message("gather and merge", message.size());
      group_->send(message, here, kSubtreeTag);
    }
    if (here != group_->rank()) return;
    if (has_right && there != here) {
      std::vector<std::byte> message(node_bytes);
      {
        const trace::Span span("wait for partials", trace::Lane::messages);
        group_->recv(message, there, kSubtreeTag);
      }
      PartialBuffer right(*backend_, n_all, shape_);
      backend_->upload(message, right.data());
      backend_->merge(partial_of(node.left()), right.partial(), shape_);
    } else if (has_right) {
      backend_->merge(partial_of(node.left()), partial_of(node.right()), shape_);
    }
    position(node.left())->first = node;
  };
  reduce(root_of(n_blocks));

  const Rank top = holder(root_of(n_blocks));
  std::int64_t first_row = 0;
  Partial merged;
  for (Rank query_rank = 0; query_rank < group_->size(); ++query_rank) {
    const std::int64_t n = exchange_->n_rows_of(query_rank);
    if (n == 0) continue;
    const bool is_mine = query_rank == group_->rank();
    std::vector<std::byte> message(PartialBuffer::n_bytes(n, shape_));
    if (group_->rank() == top) {
      const Partial rows = slice(partial_of(root_of(n_blocks)), first_row, n, shape_);
      if (is_mine) {
        merged = rows;
      } else {
        download(*backend_, rows, shape_, message);
        trace::message("gather and merge", message.size());
        group_->send(message, query_rank, kSubtreeTag);
      }
    } else if (is_mine) {
      const trace::Span span("wait for partials", trace::Lane::messages);
      group_->recv(message, top, kSubtreeTag);
      merged_ = PartialBuffer(*backend_, n, shape_);
      backend_->upload(message, merged_.data());
      merged = merged_.partial();
    }
    first_row += n;
  }
  return merged;
}

}  // namespace starattn
