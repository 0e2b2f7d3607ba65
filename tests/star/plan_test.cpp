// SPDX-License-Identifier: Apache-2.0
#include "star/plan.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "star/auto_setting.h"

namespace starattn {
namespace {

BlockPlan plan_of(std::int64_t n, std::int64_t block, std::int64_t anchor, std::int64_t reach,
                  int n_ranks, Placement placement = Placement::contiguous) {
  PlanRequest request;
  request.block_size = block;
  request.anchor_size = TokenShare{anchor};
  request.reach = reach;
  request.placement = placement;
  return BlockPlan::make(request, n, n_ranks);
}

TEST(Plan, CutsTheDocumentIntoBlocksWithAShortLastOne) {
  const BlockPlan plan = plan_of(10, 4, 4, 0, 2);
  ASSERT_EQ(plan.n_blocks(), 3);
  EXPECT_EQ(plan.block(2).first_doc, 8);
  EXPECT_EQ(plan.block(2).n_tokens, 2);
  EXPECT_EQ(plan.anchor_of(0).n_tokens, 0);
  EXPECT_EQ(plan.anchor_of(2).n_tokens, 4);
}

TEST(Plan, ReachThatCoversBlockZeroLeavesNoAnchor) {
  const BlockPlan plan = plan_of(50, 10, 6, 2, 1);
  EXPECT_EQ(plan.first_reached(2), 0);
  EXPECT_EQ(plan.anchor_of(2).n_tokens, 0);
  EXPECT_EQ(plan.first_reached(3), 1);
  EXPECT_EQ(plan.anchor_of(3).n_tokens, 6);
}

TEST(Plan, ContiguousPlacementGivesEveryBlockOneOwnerAndSharesEvenly) {
  for (int n_ranks = 1; n_ranks <= 7; ++n_ranks) {
    for (std::int64_t n_blocks = 1; n_blocks <= 20; ++n_blocks) {
      const BlockPlan plan = plan_of(n_blocks * 3, 3, 3, 0, n_ranks);
      std::size_t n_owned = 0;
      for (Rank rank = 0; rank < n_ranks; ++rank) {
        const auto blocks = plan.blocks_of(rank);
        n_owned += blocks.size();
        EXPECT_GE(blocks.size(), static_cast<std::size_t>(n_blocks / n_ranks));
        EXPECT_LE(blocks.size(), static_cast<std::size_t>(n_blocks / n_ranks + 1));
      }
      EXPECT_EQ(n_owned, static_cast<std::size_t>(n_blocks));
      EXPECT_EQ(plan.owner(0), 0);
    }
  }
}

TEST(Plan, ARankHasTheBlocksThatItOwns) {
  for (const Placement placement :
       {Placement::contiguous, Placement::zigzag, Placement::round_robin}) {
    for (int n_ranks = 1; n_ranks <= 7; ++n_ranks) {
      for (std::int64_t n_blocks = 1; n_blocks <= 20; ++n_blocks) {
        const BlockPlan plan = plan_of(n_blocks * 3, 3, 3, 0, n_ranks, placement);
        for (Rank rank = 0; rank < n_ranks; ++rank) {
          std::vector<BlockId> owned;
          for (BlockId i = 0; i < n_blocks; ++i)
            if (plan.owner(i) == rank) owned.push_back(i);
          EXPECT_EQ(plan.blocks_of(rank), owned);
        }
      }
    }
  }
}

TEST(Plan, ZigzagBalancesCausalWork) {
  const BlockPlan plan = plan_of(80, 10, 10, kReachAll, 4, Placement::zigzag);
  const Rank expected[] = {0, 1, 2, 3, 3, 2, 1, 0};
  for (BlockId i = 0; i < 8; ++i) EXPECT_EQ(plan.owner(i), expected[i]);
}

TEST(Plan, ModesHaveTheirDefaults) {
  PlanRequest ring;
  ring.attention = Attention::ring;
  const BlockPlan ring_plan = BlockPlan::make(ring, 1001, 4);
  EXPECT_EQ(ring_plan.block_size(), 126);
  EXPECT_EQ(ring_plan.reach(), ring_plan.n_blocks() - 1);
  EXPECT_EQ(ring_plan.placement(), Placement::zigzag);

  PlanRequest dense;
  dense.attention = Attention::dense;
  EXPECT_EQ(BlockPlan::make(dense, 1001, 4).n_blocks(), 1);

  const BlockPlan star = BlockPlan::make({}, 131072, 4);
  EXPECT_EQ(star.block_size(), 32768);
  EXPECT_EQ(star.anchor_size(), 32768);
  EXPECT_EQ(star.reach(), 0);
  EXPECT_EQ(auto_block_size(1'000'000), 32768);
  EXPECT_EQ(auto_block_size(100), 512);
}

TEST(Plan, RefusesWhatCannotBe) {
  EXPECT_THROW(plan_of(10, 0, 0, 0, 1), Error);
  EXPECT_THROW(plan_of(10, 4, 5, 0, 1), Error);
  EXPECT_THROW(plan_of(0, 4, 4, 0, 1), Error);
}

TEST(Plan, CanonicalTextKnowsNothingOfRanks) {
  EXPECT_EQ(plan_of(10, 4, 2, 1, 1).canonical_text(),
            plan_of(10, 4, 2, 1, 3, Placement::zigzag).canonical_text());
}

TEST(Plan, RecallGoesRoundRobinAndIsAPartOfTheKey) {
  PlanRequest request;
  request.block_size = 320;
  request.anchor_size = TokenShare{0, 16};
  request.recall = TokenShare{0, 2};
  const BlockPlan plan = BlockPlan::make(request, 1000, 3);
  EXPECT_EQ(plan.placement(), Placement::round_robin);
  EXPECT_EQ(plan.owner(3), 0);
  EXPECT_EQ(plan.anchor_size(), 20);
  EXPECT_EQ(plan.recall(), 160);
  EXPECT_EQ(plan.recall_rows(), 64);
  EXPECT_EQ(plan.n_recalled(0), 0);
  EXPECT_EQ(plan.recallable(1).n_tokens, 300);
  EXPECT_EQ(plan.n_asking_rows(3), 40);  // a short last block
  EXPECT_EQ(plan.canonical_text(),
            "block_size=320 anchor_size=20 reach=0 recall=160 recall_rows=64 recall_rule=1");
  request.recall = {};
  EXPECT_EQ(BlockPlan::make(request, 1000, 3).canonical_text(),
            "block_size=320 anchor_size=20 reach=0");
}

TEST(Plan, RecallRefusesWhatItCannotDo) {
  PlanRequest request;
  request.block_size = 100;
  request.recall = TokenShare{50};
  PlanRequest reach = request;
  reach.reach = 1;
  EXPECT_THROW(BlockPlan::make(reach, 1000, 2), Error);
  PlanRequest placed = request;
  placed.placement = Placement::contiguous;
  EXPECT_THROW(BlockPlan::make(placed, 1000, 2), Error);
  for (const std::int64_t rows : {0, 101}) {
    PlanRequest asking = request;
    asking.recall_rows = TokenShare{rows};
    EXPECT_THROW(BlockPlan::make(asking, 1000, 2), Error);
  }
}

}  // namespace
}  // namespace starattn
