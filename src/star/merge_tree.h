// SPDX-License-Identifier: Apache-2.0
// The canonical binary tree over block indices along which partial attention outputs are merged.
// Node (level, j) covers blocks [j 2^level, (j+1) 2^level) and merges (level-1, 2j) with (level-1,
// 2j+1); a missing child counts for nothing. The tree depends on the number of blocks alone, so the
// merged bits are the same on any number of ranks, and a rank may merge whole subtrees of its own
// before it sends.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "star/plan.h"

namespace starattn {

struct MergeNode {
  int level = 0;
  std::int64_t index = 0;

  auto operator<=>(const MergeNode&) const = default;
  MergeNode left() const { return {level - 1, 2 * index}; }
  MergeNode right() const { return {level - 1, 2 * index + 1}; }
  MergeNode parent() const { return {level + 1, index / 2}; }
  BlockId first_block() const { return index << level; }
};

MergeNode root_of(std::int64_t n_blocks);

// The largest subtrees made of `blocks` (ascending) alone, in block order.
std::vector<MergeNode> subtrees_of(std::span<const BlockId> blocks, std::int64_t n_blocks);

// Puts a subtree that comes after those in `done` behind them, and merges siblings into their
// parents. T is moved around; merge(a, b) leaves a (+) b in a.
template <typename T>
void push_subtree(std::vector<std::pair<MergeNode, T>>& done, MergeNode node, T value,
                  const std::function<void(T&, T&)>& merge) {
  STARATTN_CHECK(done.empty() || done.back().first.first_block() < node.first_block());
  done.emplace_back(node, std::move(value));
  while (done.size() > 1) {
    auto& [left, left_value] = done[done.size() - 2];
    auto& [right, right_value] = done.back();
    if (left.level != right.level || left.index + 1 != right.index || left.index % 2 != 0) break;
    merge(left_value, right_value);
    left = left.parent();
    done.pop_back();
  }
}

// Merges one rank's blocks, ascending, into its subtrees.
template <typename T>
std::vector<std::pair<MergeNode, T>> merge_subtrees(std::span<const BlockId> blocks,
                                                    const std::function<T(BlockId)>& make,
                                                    const std::function<void(T&, T&)>& merge) {
  std::vector<std::pair<MergeNode, T>> done;
  for (const BlockId block : blocks) push_subtree<T>(done, {0, block}, make(block), merge);
  return done;
}

// Merges everybody's subtrees up to the root. values: in block order, together covering every block
// once. The result is left in the first value.
template <typename T>
void merge_to_root(std::vector<std::pair<MergeNode, T>>& values, std::int64_t n_blocks,
                   const std::function<void(T&, T&)>& merge) {
  const MergeNode root = root_of(n_blocks);
  // Returns the index in `values` of the merged subtree, none when it covers no block.
  const std::function<std::optional<std::size_t>(MergeNode)> reduce =
      [&](MergeNode node) -> std::optional<std::size_t> {
    if (node.first_block() >= n_blocks) return std::nullopt;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i].first == node) return i;
    }
    STARATTN_CHECK(node.level > 0);
    const auto left = reduce(node.left());
    const auto right = reduce(node.right());
    STARATTN_CHECK(left);
    if (right) merge(values[*left].second, values[*right].second);
    return left;
  };
  const auto top = reduce(root);
  STARATTN_CHECK(top && *top == 0);
}

}  // namespace starattn
