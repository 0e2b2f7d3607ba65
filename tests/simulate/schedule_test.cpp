// SPDX-License-Identifier: Apache-2.0
// Schedules on a machine whose rates are round: on one rank they are sums of operations, and on
// several what each waits for is in them.
#include "simulate/schedule.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace starattn {
namespace {

ModelConfig model() {
  ModelConfig config;
  config.vocab_size = 1000;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.n_layers = 6;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 16;
  return config;
}

// Products and attention at 1 MFLOP/s; all else takes nothing.
Machine machine() {
  constexpr double kAtOnce = 1e30;
  Machine m;
  m.dtype = Dtype::bf16;
  m.chunk_rows = 32;
  m.n_ranks = 2;
  m.products = {{64, 64, 1e6}};
  m.attention = {{16, 32, 1e6}};
  m.row_bytes_per_s = m.scoring_flops_per_s = m.likeness_bytes_per_s = m.best_of_keys_per_s =
      kAtOnce;
  m.thin_layers = m.thin_products = m.thin_attention = m.thin_merges =
      m.next_tokens = {{1, 16, {1, kAtOnce}}};
  m.thin_merges = {{1, 0, {0, kAtOnce}}};
  m.next_tokens = {{1, 0, {0, kAtOnce}}};
  m.message = ByteTime{0, kAtOnce};
  m.step = ByteTime{0, kAtOnce};
  return m;
}

PlanRequest request(std::int64_t block_size, Attention attention = Attention::star) {
  PlanRequest request;
  request.attention = attention;
  if (attention != Attention::dense) request.block_size = block_size;
  return request;
}

double seconds(const BlockPlan& plan, const Cluster& cluster = {},
               AnchorMode mode = AnchorMode::broadcast, const Machine& m = machine()) {
  return simulate_phase1(model(), plan, m, cluster, {mode, KvMemory::device}).seconds;
}

TEST(Schedule, OnOneRankPhase1IsItsOperations) {
  const ModelConfig config = model();
  for (const AnchorMode mode : {AnchorMode::broadcast, AnchorMode::recompute}) {
    const BlockPlan plan = BlockPlan::make(request(64), 250, 1);
    EXPECT_NEAR(seconds(plan, {}, mode), phase1_flops(config, plan, mode).total() * 1e-6,
                1e-9 * seconds(plan, {}, mode));
  }
  const BlockPlan dense = BlockPlan::make(request(0, Attention::dense), 250, 1);
  EXPECT_NEAR(seconds(dense), phase1_flops(config, dense, AnchorMode::broadcast).total() * 1e-6,
              1e-9);
  PlanRequest recall = request(64);
  recall.recall = {.divisor = 2};
  const BlockPlan recalling = BlockPlan::make(recall, 250, 1);
  const Phase1Flops flops = phase1_flops(config, recalling, AnchorMode::broadcast);
  EXPECT_NEAR(seconds(recalling), (flops.linear + flops.attention) * 1e-6, 1e-9);
}

TEST(Schedule, WithoutMessagesInTheWaySeveralRanksTakeTheSlowestOnesTime) {
  const BlockPlan star = BlockPlan::make(request(32), 8 * 32, 4);
  const double flops = slowest_rank_flops(model(), star, AnchorMode::broadcast);
  EXPECT_GE(seconds(star), flops * 1e-6);
  EXPECT_LE(seconds(star), 1.1 * flops * 1e-6);  // all wait for the first layer of block 0
  const BlockPlan ring = BlockPlan::make(request(32, Attention::ring), 8 * 32, 4);
  const double of_ring = slowest_rank_flops(model(), ring, AnchorMode::broadcast);
  EXPECT_GE(seconds(ring), of_ring * 1e-6);
  EXPECT_LE(seconds(ring), 1.2 * of_ring * 1e-6);
}

TEST(Schedule, ASlowRankAndASlowAnchorShow) {
  const BlockPlan plan = BlockPlan::make(request(32), 8 * 32, 4);
  const double even = seconds(plan);
  Cluster slow;
  slow.slow = {{3, 2.0}};
  EXPECT_LE(seconds(plan, slow), 2 * even);
  EXPECT_GE(seconds(plan, slow), 1.9 * even);
  Machine far_anchor = machine();
  far_anchor.message = ByteTime{even, 1e30};  // a layer of the anchor takes as long as everything
  EXPECT_GT(seconds(plan, {}, AnchorMode::broadcast, far_anchor), 1.5 * even);
  EXPECT_LT(seconds(plan, {}, AnchorMode::recompute, far_anchor), 2 * even);
}

TEST(Schedule, AGatherGrowsWithTheRanksAndATreeWithTheirLogarithm) {
  Machine m = machine();
  m.step = ByteTime{0, 1e3};
  const auto step = [&](int n_ranks, bool tree) {
    const BlockPlan plan = BlockPlan::make(request(32), 32 * n_ranks, n_ranks);
    return simulate_step(model(), plan, m, {}, {}, {.tree_merge = tree}).seconds;
  };
  EXPECT_GT(step(64, false) - step(1, false), 12 * (step(4, false) - step(1, false)));
  EXPECT_LT(step(64, true) - step(1, true), 5 * (step(4, true) - step(1, true)));
  EXPECT_LT(step(64, true), step(64, false));
}

TEST(Schedule, LayersThatAreNotSimulatedGoOnLikeTheOthers) {
  // Many ranks on a ring: more operations than are simulated one by one.
  ModelConfig deep = model();
  deep.n_layers = 400;
  const BlockPlan plan = BlockPlan::make(request(32, Attention::ring), 256 * 32, 128);
  const double all = simulate_phase1(deep, plan, machine(), {}).seconds;
  const double flops = slowest_rank_flops(deep, plan, AnchorMode::broadcast);
  EXPECT_NEAR(all, flops * 1e-6, 0.05 * flops * 1e-6);
}

TEST(Schedule, QueriesGoThroughStepsAsTheyDoInPhase2) {
  const BlockPlan plan = BlockPlan::make(request(32), 64, 1);
  const auto answers = [&](std::int64_t n_queries, std::int64_t n_tokens, std::int64_t n_new) {
    return simulate_answers(model(), plan, machine(), {}, n_queries, n_tokens, n_new).n_steps;
  };
  EXPECT_EQ(answers(1, 8, 16), 16);
  EXPECT_EQ(answers(16, 8, 16), 16);  // 128 rows in the first step
  EXPECT_EQ(answers(17, 8, 16), 17);  // the last one begins in the second
  EXPECT_EQ(answers(1, 300, 1), 3);   // 128 + 128 + 44 rows
}

TEST(Schedule, WhatWouldTakeTooLongIsRefused) {
  const auto refuses = [](const BlockPlan& plan) {
    EXPECT_THROW(simulate_phase1(model(), plan, machine(), {}), Error) << plan.n_blocks();
  };
  refuses(BlockPlan::make(request(1), 10'000'000, 2));
  refuses(BlockPlan::make(request(1, Attention::ring), 100'000, 2));
  refuses(BlockPlan::make(request(1), 10'000, 10'000));
}

TEST(Schedule, SeveralRanksNeedAMachineWithMessages) {
  Machine alone = machine();
  alone.message.reset();
  const BlockPlan plan = BlockPlan::make(request(32), 64, 2);
  EXPECT_THROW(simulate_phase1(model(), plan, alone, {}), Error);
  ModelConfig mixture = model();
  mixture.mixture = {.n_experts = 4, .n_chosen = 2, .expert_size = 8};
  mixture.layers.assign(static_cast<std::size_t>(mixture.n_layers), {.is_mixture = true});
  EXPECT_THROW(simulate_phase1(mixture, plan, machine(), {}), Error);
  ModelConfig f8 = model();
  f8.fp8.scales = Fp8Config::Scales::made;
  EXPECT_THROW(simulate_phase1(f8, plan, machine(), {}), Error);
  EXPECT_THROW(with_f8_kv(machine()), Error);
}

TEST(Schedule, InALayerPartsTakeLonger) {
  const BlockPlan plan = BlockPlan::make(request(64), 250, 1);
  const Phase1Flops flops = phase1_flops(model(), plan, AnchorMode::broadcast);
  Machine m = machine();
  m.in_layer = {{64, 2, 3}};
  EXPECT_NEAR(seconds(plan, {}, AnchorMode::broadcast, m),
              (2 * flops.linear + 3 * flops.attention) * 1e-6, 1e-6);
  m.block_start = ByteTime{10, 1e30};
  EXPECT_NEAR(seconds(plan, {}, AnchorMode::broadcast, m),
              (2 * flops.linear + 3 * flops.attention) * 1e-6 + 4 * 10, 1e-6);
}

// Groups of ranks were measured together: what that took is in what they are planned to take.
TEST(Schedule, RanksThatWereTimedTogetherTakeWhatTheyTook) {
  Machine m = machine();
  m.in_layer = {{64, 1, 1}};
  m.groups.assign(1, {});
  m.groups.reserve(2);
  Machine::Group& group = m.groups.front();
  group.n_ranks = 2;
  group.in_layer = {64, 2, 1};
  group.thin_layers = {{1, 16, {5, 1e30}}};
  group.next_tokens = {{1, 0, {7, 1e30}}};
  group.parts = {{1, 0, {3, 1e30}}};
  group.recall_wait = {0, 1e30};
  const ModelConfig config = model();
  const BlockPlan plan = BlockPlan::make(request(32, Attention::ring), 8 * 32, 2);
  const auto phase1 = [&](int n_shares) {
    return simulate_phase1(config, plan, m, {}, {.n_shares = n_shares}).seconds;
  };
  EXPECT_GT(phase1(2), 1.3 * phase1(1));  // products, not attention

  const double before = phase1(1);
  group.copy_s_a_byte = 1e-6;
  EXPECT_GT(phase1(1), before);
  const BlockPlan alone = BlockPlan::make(request(32, Attention::ring), 8 * 32, 1);
  const double on_one = seconds(alone, {}, AnchorMode::broadcast, m);
  EXPECT_EQ(on_one, seconds(alone));  // to which nothing comes

  PlanRequest recall = request(32);
  recall.recall = {.divisor = 2};
  recall.anchor_size = TokenShare{8};
  const BlockPlan recalling = BlockPlan::make(recall, 8 * 32, 2);
  group.copy_s_a_byte = 0;
  group.recall_wait = {0, 1e30};
  const double without = seconds(recalling, {}, AnchorMode::broadcast, m);
  group.recall_wait = {1, 1e30};
  EXPECT_GT(seconds(recalling, {}, AnchorMode::broadcast, m), without + 1);

  // Ranks that have no block are no part of the group.
  m.groups.push_back(group);
  m.groups.back().n_ranks = 4;
  m.groups.back().recall_wait = {100, 1e30};
  const BlockPlan two_of_four = BlockPlan::make(recall, 2 * 32, 4);
  const BlockPlan two_of_two = BlockPlan::make(recall, 2 * 32, 2);
  EXPECT_EQ(seconds(two_of_four, {}, AnchorMode::broadcast, m),
            seconds(two_of_two, {}, AnchorMode::broadcast, m));

  // An anchor comes to a rank once, however many of its blocks see it.
  const auto star = [&](double copy_s_a_byte, std::int64_t n_blocks) {
    m.groups.front().copy_s_a_byte = copy_s_a_byte;
    return seconds(BlockPlan::make(request(32), n_blocks * 32, 2), {}, AnchorMode::broadcast, m);
  };
  EXPECT_NEAR(star(1e-3, 8) - star(0, 8), star(1e-3, 2) - star(0, 2), 1e-6);
  EXPECT_GT(star(1e-3, 2), star(0, 2));
  m.groups.front().copy_s_a_byte = 0;

  // A layer of a step, and what is in none; exchanges are in the layer. A rank has four blocks that
  // are no neighbours.
  const auto step = simulate_step(config, plan, m, {}, {1, {1}}, {.n_shares = 2});
  const double attention = Seconds(config, m).step_attention(1, 2, 4 * 32);
  EXPECT_NEAR(step.seconds,
              static_cast<double>(config.n_layers) * (5 + 3 * 3 + attention) + 7 +
                  seconds_of(m.thin_products, 1, 64, 1),
              1e-6);
}

TEST(Schedule, ThroughWindowsRowsSeeWhatTheyHaveToSee) {
  for (const std::int64_t window : {5, 16, 40, 100}) {
    ModelConfig config = model();
    config.layers.assign(static_cast<std::size_t>(config.n_layers), {});
    for (std::size_t i = 0; i < config.layers.size(); i += 2) config.layers[i].window = window;
    for (const BlockPlan& plan : {BlockPlan::make(request(0, Attention::dense), 250, 1, window),
                                  BlockPlan::make(request(64), 250, 1, window)}) {
      const double flops = phase1_flops(config, plan, AnchorMode::broadcast).total();
      EXPECT_NEAR(simulate_phase1(config, plan, machine(), {}).seconds, flops * 1e-6, 1e-6)
          << window << " " << plan.n_blocks();
    }
    // Ranks of a wave hand halos on.
    const BlockPlan plan = BlockPlan::make(request(64), 250, 4, window);
    const Simulated waves = simulate_phase1(config, plan, machine(), {});
    EXPECT_GE(waves.seconds,
              slowest_rank_flops(config, plan, AnchorMode::broadcast) * 1e-6 * (1 - 1e-9));
    EXPECT_GT(waves.n_bytes, 0);
  }
}

TEST(Schedule, AMixturesExpertsAndFp8HaveRatesOfTheirOwn) {
  const BlockPlan plan = BlockPlan::make(request(0, Attention::dense), 96, 1);
  ModelConfig mixture = model();
  mixture.mixture = {.n_experts = 4, .n_chosen = 2, .expert_size = 8};
  mixture.layers.assign(static_cast<std::size_t>(mixture.n_layers), {.is_mixture = true});
  Machine m = machine();
  m.experts = {{{8, 1e6}}, {{1, 0, {7, 1e30}}}};
  // The router is timed with its experts.
  const double router = 2.0 * 96 * 64 * 4 * 5;
  EXPECT_NEAR(simulate_phase1(mixture, plan, m, {}).seconds,
              (phase1_flops(mixture, plan, AnchorMode::broadcast).total() - router) * 1e-6, 1e-6);
  // A layer of a step takes 1, attention 1, the experts 7; the head 1.
  EXPECT_NEAR(simulate_step(mixture, plan, m, {}, {}).seconds, 6 * (1 + 1 + 7) + 1, 1e-9);

  ModelConfig f8 = model();
  f8.fp8.scales = Fp8Config::Scales::made;
  m.f8_weights = {{{64, 0.5, 1}}, {{1, 16, {4, 1e30}}}, std::nullopt};
  const Phase1Flops flops = phase1_flops(f8, plan, AnchorMode::broadcast);
  EXPECT_NEAR(simulate_phase1(f8, plan, m, {}).seconds,
              (0.5 * flops.linear + flops.attention) * 1e-6, 1e-6);
  EXPECT_NEAR(simulate_step(f8, plan, m, {}, {}).seconds, 6 * (4 + 1) + 1, 1e-9);
  m.f8_kv = {{{64, 1, 2}}, {{1, 16, {3, 1e30}}}};
  EXPECT_NEAR(simulate_phase1(f8, plan, with_f8_kv(m), {}).seconds,
              (0.5 * flops.linear + 2 * flops.attention) * 1e-6, 1e-6);
  EXPECT_NEAR(simulate_step(f8, plan, with_f8_kv(m), {}, {}).seconds, 6 * (4 + 3) + 1, 1e-9);
}

}  // namespace
}  // namespace starattn
