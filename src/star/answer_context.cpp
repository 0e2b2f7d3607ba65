// SPDX-License-Identifier: Apache-2.0
// Phase 2's exchange: Q to everyone, partial attention per block, partials back, the canonical
// merge.
#include <algorithm>

#include "star/answer.h"
#include "trace/range.h"

namespace starattn {
namespace {

constexpr int kSubtreeTag = 111;
constexpr std::size_t kBlocksAtOnce = 8;  // bounds the memory of partials that are not merged yet

}  // namespace

Partial Answerer::attend_to_context(std::int64_t layer, Rows q) {
  const Rows all_q = exchange_.share(q);
  const std::vector<Subtree> mine = attend_to_blocks(layer, all_q);
  const trace::Range range("gather and merge");
  if (options_.tree_merge && group_->size() > 1) return merge_along_tree(mine);
  std::vector<Partial> own;
  for (const auto& [node, part] : mine) own.push_back(part_of(part));
  const std::vector<Partial> all = exchange_.collect(own);
  if (all.empty()) return {};
  backend_->merge_all(all, merges_to_root_, shape_);
  return all[static_cast<std::size_t>(root_)];
}

std::vector<Answerer::Subtree> Answerer::attend_to_blocks(std::int64_t layer, Rows all_q) {
  const trace::Range range("partial attention");
  const std::vector<BlockId> blocks = kv_->plan.blocks_of(group_->rank());
  const std::span<const KvSegment> segments = feed_.layer(layer);
  free_parts_.clear();
  for (std::size_t i = parts_.size(); i-- > 0;) free_parts_.push_back(static_cast<int>(i));
  std::vector<Subtree> done;
  for (std::size_t first = 0; first < blocks.size(); first += kBlocksAtOnce) {
    const std::size_t n = std::min(kBlocksAtOnce, blocks.size() - first);
    std::vector<Partial> parts;
    std::vector<int> numbers;  // of these parts among all
    for (std::size_t i = 0; i < n; ++i) {
      numbers.push_back(take_part());
      parts.push_back(part_of(numbers.back()));
    }
    std::vector<Merge> merges;
    int n_made = 0;
    const auto subtrees = merge_subtrees<int>(
        std::span(blocks).subspan(first, n), [&](BlockId) { return n_made++; },
        [&](int& a, int& b) {
          merges.push_back({a, b});
          free_parts_.push_back(numbers[static_cast<std::size_t>(b)]);
        });
    backend_->attend_blocks(all_q, segments.subspan(first, n), shape_, merges, parts);
    for (const auto& [node, i] : subtrees) {
      push_subtree<int>(done, node, numbers[static_cast<std::size_t>(i)], [&](int& a, int& b) {
        backend_->merge(part_of(a), part_of(b), shape_);
        free_parts_.push_back(b);
      });
    }
  }
  return done;
}

int Answerer::take_part() {
  if (free_parts_.empty()) {
    free_parts_.push_back(static_cast<int>(parts_.size()));
    parts_.emplace_back(*backend_, max_rows_, shape_);
  }
  const int part = free_parts_.back();
  free_parts_.pop_back();
  return part;
}

// The same tree with the same bits, for many ranks: a node is merged where its first block lives,
// and the root's owner hands each query rank its rows. Nobody receives more than log2(blocks)
// messages a node, where a gather would bring all of them to one rank.
Partial Answerer::merge_along_tree(std::vector<Subtree> mine) {
  const std::int64_t n_blocks = kv_->plan.n_blocks();
  const std::int64_t n_all = exchange_.n_rows();
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
  const auto partial_of = [&](MergeNode node) { return part_of(position(node)->second); };
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
      group_->send(message, here, kSubtreeTag);
    }
    if (here != group_->rank()) return;
    if (has_right && there != here) {
      std::vector<std::byte> message(node_bytes);
      group_->recv(message, there, kSubtreeTag);
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
    const std::int64_t n = n_rows_[static_cast<std::size_t>(query_rank)];
    if (n == 0) continue;
    const bool is_mine = query_rank == group_->rank();
    std::vector<std::byte> message(PartialBuffer::n_bytes(n, shape_));
    if (group_->rank() == top) {
      const Partial rows = slice(partial_of(root_of(n_blocks)), first_row, n, shape_);
      if (is_mine) {
        merged = rows;
      } else {
        download(*backend_, rows, shape_, message);
        group_->send(message, query_rank, kSubtreeTag);
      }
    } else if (is_mine) {
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
