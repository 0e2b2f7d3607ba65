// SPDX-License-Identifier: Apache-2.0
#include "star/merge_tree.h"

namespace starattn {

MergeNode root_of(std::int64_t n_blocks) {
  MergeNode root;
  while ((std::int64_t{1} << root.level) < n_blocks) ++root.level;
  return root;
}

std::vector<MergeNode> subtrees_of(std::span<const BlockId> blocks, std::int64_t n_blocks) {
  STARATTN_CHECK(blocks.empty() || blocks.back() < n_blocks);
  std::vector<MergeNode> nodes;
  const auto merged = merge_subtrees<char>(
      blocks, [](BlockId) { return '\0'; }, [](char&, char&) {});
  for (const auto& [node, value] : merged) nodes.push_back(node);
  return nodes;
}

}  // namespace starattn
