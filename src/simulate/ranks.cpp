// SPDX-License-Identifier: Apache-2.0
#include "simulate/ranks.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {
namespace {

// What is made in memory before it runs, roughly: of star an entry a block, of recall one a block
// and rank, of reach one a pair of blocks.
void refuse_too_many(const BlockPlan& plan) {
  constexpr int kMostRanks = 8192;
  constexpr double kMostEntries = 1e7;
  const auto blocks = static_cast<double>(plan.n_blocks());
  const double entries = plan.reach() > 0    ? blocks * blocks
                         : plan.recall() > 0 ? blocks * plan.n_ranks()
                                             : 8 * blocks;
  if (plan.n_ranks() <= kMostRanks && entries <= kMostEntries) return;
  fail(Exit::unfit,
       "{} blocks on {} ranks are too many to simulate: at most {} ranks, and fewer and larger "
       "blocks",
       plan.n_blocks(), plan.n_ranks(), kMostRanks);
}

}  // namespace

Links links_of(const BlockPlan& plan, const Machine& machine, const Cluster& cluster,
               const std::optional<ByteTime>& near) {
  refuse_too_many(plan);
  if (plan.n_ranks() > 1 && !near) {
    fail(
        Exit::unfit,
        "the machine file has no messages: it was made on one rank, and the plan has {}. Run bench "
        "--calibrate on two ranks of a node",
        plan.n_ranks());
  }
  return {std::min(cluster.ranks_per_node, plan.n_ranks()), near.value_or(ByteTime{0, 1}),
          machine.network.value_or(cluster.network), machine.dtype == Dtype::f32};
}

std::vector<std::vector<BlockId>> blocks_by_rank(const BlockPlan& plan) {
  std::vector<std::vector<BlockId>> blocks(static_cast<std::size_t>(plan.n_ranks()));
  for (BlockId i = 0; i < plan.n_blocks(); ++i)
    blocks[static_cast<std::size_t>(plan.owner(i))].push_back(i);
  return blocks;
}

}  // namespace starattn
