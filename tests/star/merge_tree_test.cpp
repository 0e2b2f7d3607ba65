// SPDX-License-Identifier: Apache-2.0
#include "star/merge_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace starattn {
namespace {

using Named = std::vector<std::pair<MergeNode, std::string>>;

void join(std::string& a, std::string& b) {
  a = "(" + a + b + ")";
}

// The merged expression when `owner` decides who has which block.
std::string expression(std::int64_t n_blocks, int n_ranks,
                       const std::function<int(BlockId)>& owner) {
  Named all;
  for (int rank = 0; rank < n_ranks; ++rank) {
    std::vector<BlockId> blocks;
    for (BlockId i = 0; i < n_blocks; ++i) {
      if (owner(i) == rank) blocks.push_back(i);
    }
    Named mine = merge_subtrees<std::string>(
        blocks, [](BlockId i) { return std::string(1, static_cast<char>('a' + i)); }, join);
    std::vector<MergeNode> nodes;
    for (const auto& [node, value] : mine) nodes.push_back(node);
    EXPECT_EQ(nodes, subtrees_of(blocks, n_blocks));
    all.insert(all.end(), mine.begin(), mine.end());
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.first.first_block() < b.first.first_block();
  });
  merge_to_root<std::string>(all, n_blocks, join);
  return all.front().second;
}

TEST(MergeTree, IsBinaryOverBlockIndices) {
  EXPECT_EQ(expression(1, 1, [](BlockId) { return 0; }), "a");
  EXPECT_EQ(expression(4, 1, [](BlockId) { return 0; }), "((ab)(cd))");
  EXPECT_EQ(expression(5, 1, [](BlockId) { return 0; }), "(((ab)(cd))e)");
  EXPECT_EQ(expression(7, 1, [](BlockId) { return 0; }), "(((ab)(cd))((ef)g))");
}

TEST(MergeTree, IsTheSameForAnyOwners) {
  for (std::int64_t n_blocks = 1; n_blocks <= 19; ++n_blocks) {
    const std::string alone = expression(n_blocks, 1, [](BlockId) { return 0; });
    for (int n_ranks = 2; n_ranks <= 6; ++n_ranks) {
      EXPECT_EQ(alone, expression(n_blocks, n_ranks,
                                  [&](BlockId i) { return static_cast<int>(i % n_ranks); }));
      EXPECT_EQ(alone, expression(n_blocks, n_ranks, [&](BlockId i) {
                  return static_cast<int>(i * n_ranks / n_blocks);
                }));
      EXPECT_EQ(alone, expression(n_blocks, n_ranks, [&](BlockId i) {
                  return static_cast<int>((i * 2654435761U) % static_cast<unsigned>(n_ranks));
                }));
    }
  }
}

TEST(MergeTree, MergesWholeSubtreesBeforeSending) {
  std::vector<BlockId> blocks;
  for (BlockId i = 0; i < 256; ++i) blocks.push_back(i);
  EXPECT_EQ(subtrees_of(blocks, 256).size(), 1U);
  EXPECT_EQ(subtrees_of(std::vector<BlockId>{1, 2, 3, 4}, 8).size(), 3U);
}

}  // namespace
}  // namespace starattn
