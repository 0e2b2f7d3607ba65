// SPDX-License-Identifier: Apache-2.0
#include "star/cost.h"

#include <gtest/gtest.h>

#include <algorithm>

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

TEST(Cost, ARowHasAnglesForEachRope) {
  const ModelConfig one = testing::tiny_config();
  ModelConfig two = one;
  two.layers = {{}, {.has_other_rope = true}, {}};
  PlanRequest request;
  request.block_size = 64;
  const BlockPlan plan = BlockPlan::make(request, 64, 1);
  const auto workspace = [&](const ModelConfig& config) {
    return memory_needs(config, plan, AnchorMode::broadcast, 0, Dtype::bf16, Dtype::bf16, 32)[0]
        .workspace;
  };
  const auto of_angles = static_cast<std::uint64_t>(64 * one.head_dim) * sizeof(float);
  EXPECT_EQ(workspace(two), workspace(one) + of_angles);
  two.rope.query_beta = 1;
  EXPECT_EQ(workspace(two), workspace(one) + 3 * of_angles);
}

TEST(Cost, ARowGoesThroughTheExpertsThatItTakes) {
  const ModelConfig dense = testing::tiny_config();
  const ModelConfig mixture = testing::tiny_mixture_config();
  PlanRequest request;
  request.block_size = 64;
  const BlockPlan plan = BlockPlan::make(request, 200, 2);
  const auto flops = [&](const ModelConfig& config) {
    return phase1_flops(config, plan, AnchorMode::broadcast).linear;
  };
  // Of the first two layers, which context rows go through to the end, the first is a mixture.
  const double hidden = 48, router = 48 * 7;
  EXPECT_EQ(flops(mixture) - flops(dense), 2 * 200 * (3 * hidden * (3 * 40 - 80) + router));
  // Of seven experts a row leaves four out, in two layers of three.
  EXPECT_EQ(n_parameters(mixture) - n_parameters_of_a_row(mixture), 2 * 4 * 3 * 48 * 40);
  EXPECT_EQ(n_parameters(dense), n_parameters_of_a_row(dense));
  EXPECT_EQ(step_bytes(mixture, plan, Dtype::bf16, Dtype::bf16).weights,
            (n_parameters_of_a_row(mixture) - 96 * 48) * 2);
  // And through the one that all take.
  const ModelConfig shared = testing::tiny_shared_expert_config(false);
  EXPECT_EQ(flops(shared) - flops(mixture), 2 * 200 * 3 * hidden * 104);
  EXPECT_EQ(n_parameters(shared) - n_parameters(mixture), 2 * (3 * 48 * 104 + 48));
}

TEST(Cost, AGpuWidensOneFp8MatrixAtATime) {
  const ModelConfig plain = testing::tiny_config();
  ModelConfig fp8 = plain;
  fp8.fp8.scales = Fp8Config::Scales::block;
  PlanRequest request;
  request.block_size = 64;
  const BlockPlan plan = BlockPlan::make(request, 200, 1);
  const auto workspace = [&](const ModelConfig& config, Dtype dtype) {
    return memory_needs(config, plan, AnchorMode::broadcast, 1000, dtype, dtype, 32)[0].workspace;
  };
  EXPECT_EQ(
      workspace(fp8, Dtype::bf16) - workspace(plain, Dtype::bf16),
      2U * 48 * static_cast<std::uint64_t>(std::max(plain.intermediate_size, plain.q_width())));
  EXPECT_EQ(workspace(fp8, Dtype::f32), workspace(plain, Dtype::f32));

  // A chunk of 32 rows that are rounded, as wide as a matrix has columns, and widened again.
  ModelConfig rounded = fp8;
  rounded.fp8.rounds_rows = true;
  EXPECT_EQ(
      workspace(rounded, Dtype::bf16) - workspace(fp8, Dtype::bf16),
      32U *
          (3 * static_cast<std::uint64_t>(std::max(plain.intermediate_size, plain.q_width())) + 4));
  EXPECT_EQ(workspace(rounded, Dtype::f32), workspace(plain, Dtype::f32));

  // All experts of a layer together.
  const ModelConfig mixture = testing::tiny_mixture_config();
  ModelConfig f8_mixture = mixture;
  f8_mixture.fp8.scales = Fp8Config::Scales::made;
  EXPECT_EQ(workspace(f8_mixture, Dtype::bf16) - workspace(mixture, Dtype::bf16),
            2U * 48 * static_cast<std::uint64_t>(plain.q_width() + 3 * 7 * 40));
  // A step reads a byte of each weight, two of the head's, and nothing of the other table.
  EXPECT_EQ(step_bytes(f8_mixture, plan, Dtype::bf16, Dtype::bf16).weights,
            n_parameters_of_a_row(mixture));
}

TEST(Cost, KvInFp8TakesAByteForEachNumberAndHead) {
  const ModelConfig config = testing::tiny_config();             // 2 KV heads of 16, 3 layers
  EXPECT_EQ(config.kv_bytes_per_token(Dtype::f8), 3U * 2 * 48);  // 32 + 2, filled up
  EXPECT_EQ(config.kv_bytes_per_token(Dtype::bf16), 3U * 2 * 64);
  PlanRequest request;
  request.block_size = 64;
  request.anchor_size = TokenShare{40};
  const BlockPlan plan = BlockPlan::make(request, 200, 1);
  const auto needs = [&](Dtype kv_dtype, Dtype dtype) {
    return memory_needs(config, plan, AnchorMode::broadcast, 1000, kv_dtype, dtype, 32)[0];
  };
  EXPECT_EQ(needs(Dtype::f8, Dtype::bf16).own_kv, 200U * 3 * 2 * 48);
  // Both devices have a chunk of 32 rows before they round it. A GPU widens an anchor and a block,
  // a CPU a tile.
  EXPECT_EQ(needs(Dtype::f8, Dtype::bf16).workspace - needs(Dtype::bf16, Dtype::bf16).workspace,
            (32U + 40 + 64) * 2 * 32 * 2);
  EXPECT_EQ(needs(Dtype::f8, Dtype::f32).workspace - needs(Dtype::f32, Dtype::f32).workspace,
            32U * 2 * 32 * 4);
}

TEST(Cost, OfAWindowIsThatOfTheTokensThatRowsSee) {
  const ModelConfig plain = testing::tiny_config();  // 3 layers, the last makes K and V only
  PlanRequest request;
  request.block_size = 64;
  const BlockPlan plan = BlockPlan::make(request, 200, 1);
  const auto pairs_of = [&](const ModelConfig& config) {
    return phase1_flops(config, plan, AnchorMode::broadcast).attention /
           (4.0 * static_cast<double>(config.q_width()));
  };
  const double of_a_layer = pairs_of(plain) / 2;
  for (const std::int64_t window : {1, 30, 64, 65, 100, 200, 1000}) {
    ModelConfig config = plain;
    config.layers = {{}, {.window = window}, {.window = window}};
    double pairs = 0;
    for (std::int64_t token = 0; token < 200; ++token)
      pairs += static_cast<double>(std::min(window, token + 1));
    EXPECT_DOUBLE_EQ(pairs_of(config), of_a_layer + pairs) << window;
    // A step reads the whole context in one layer, and in two what the row behind it sees.
    const auto seen = static_cast<std::uint64_t>(std::min<std::int64_t>(window - 1, 200));
    EXPECT_EQ(step_bytes(config, plan, Dtype::bf16, Dtype::bf16).kv, (200 + 2 * seen) * 2 * 64);
  }
}

}  // namespace
}  // namespace starattn
