// SPDX-License-Identifier: Apache-2.0
#include "star/cost.h"

#include <gtest/gtest.h>

#include "tiny_model.h"

namespace starattn {
namespace {

TEST(Cost, EveryRankNeedsItsOwnBlocksAndTheFullestComesFirst) {
  const ModelConfig config = testing::tiny_config();
  PlanRequest request;
  request.block_size = 64;
  const BlockPlan plan = BlockPlan::make(request, 3 * 64 + 10, 6);  // four blocks: two ranks idle
  const std::vector<MemoryNeed> needs = memory_needs(config, plan, AnchorMode::broadcast, 1000,
                                                     Dtype::f32, Dtype::f32, /*chunk_rows=*/32);
  ASSERT_EQ(needs.size(), 6);
  std::uint64_t kv = 0;
  for (Rank rank = 0; rank < 6; ++rank) {
    const MemoryNeed& need = needs[static_cast<std::size_t>(rank)];
    EXPECT_EQ(need.weights, 1000);
    EXPECT_LE(need.total(), fullest(needs).total());
    if (plan.blocks_of(rank).empty()) {
      EXPECT_EQ(need.own_kv, 0);
      EXPECT_EQ(need.anchor, 0);
    }
    kv += need.own_kv;
  }
  EXPECT_EQ(kv,
            static_cast<std::uint64_t>(plan.n_context()) * config.kv_bytes_per_token(Dtype::f32));
  EXPECT_EQ(needs[static_cast<std::size_t>(plan.owner(0))].anchor, 0);
}

TEST(Cost, AStepReadsAllWeightsButTheTableOfTheEmbedding) {
  ModelConfig config = testing::tiny_config();
  PlanRequest request;
  request.block_size = 64;
  const BlockPlan plan = BlockPlan::make(request, 3 * 64 + 10, 3);  // two blocks for one rank
  const std::uint64_t kv = 2 * 64 * config.kv_bytes_per_token(Dtype::bf16);
  config.tied_embeddings = true;
  const StepBytes tied = step_bytes(config, plan, Dtype::bf16, Dtype::bf16);
  EXPECT_EQ(tied.weights, n_parameters(config) * 2);
  EXPECT_EQ(tied.kv, kv);
  config.tied_embeddings = false;
  EXPECT_EQ(step_bytes(config, plan, Dtype::bf16, Dtype::bf16).weights, tied.weights);
  EXPECT_EQ(step_bytes(config, plan, Dtype::f32, Dtype::bf16).weights, 2 * tied.weights);
}

}  // namespace
}  // namespace starattn
