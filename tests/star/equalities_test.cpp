// SPDX-License-Identifier: Apache-2.0
// The equalities of the method, on however many ranks mpirun started: the same bits on any number
// of ranks and with any placement, exact modes equal to dense, one query alone equal to the same in
// a batch. recall_equalities_test.cpp has those of recall.
#include "equalities.h"

#include <list>
#include <map>

namespace starattn::testing {
namespace {

// K or V of one layer, on the host.
std::vector<std::byte> bytes_of(const TinyModel& model, const KvCache& cache,
                                const std::byte* part) {
  std::vector<std::byte> bytes(cache.part_bytes());
  model.backend->download(part, bytes);
  return bytes;
}

TEST_F(Equalities, StarHasTheSameBitsOnAnyRanks) {
  expect_same_bits_as_alone({});
}

TEST_F(Equalities, ZigzagHasTheSameBits) {
  Setting setting;
  setting.block = 60;
  setting.anchor = 60;
  const Outcome contiguous = run(world_, setting);
  setting.placement = Placement::zigzag;
  const Outcome zigzag = run(world_, setting);
  expect_same_bits(contiguous, zigzag);
}

TEST_F(Equalities, ReachHasTheSameBitsOnAnyRanks) {
  for (const std::int64_t reach : {1, 2}) {
    for (const Placement placement : {Placement::contiguous, Placement::zigzag}) {
      Setting setting;
      setting.block = 90;
      setting.anchor = 40;
      setting.reach = reach;
      setting.placement = placement;
      expect_same_bits_as_alone(setting);
    }
  }
}

TEST_F(Equalities, RaggedCasesWork) {
  for (const std::int64_t n : {1, 2, 199, 200, 201}) {
    for (const std::int64_t anchor : {0, 1, 150, 200}) {
      Setting setting;
      setting.n_context = n;
      setting.anchor = anchor;
      expect_same_bits_as_alone(setting);
    }
  }
}

TEST_F(Equalities, KvInFp8HasTheSameBitsOnAnyRanks) {
  Setting star;
  star.has_f8_kv = true;
  star.block = 90;
  star.anchor = 40;
  Setting zigzag = star, reach = star, ring = star, tree = star, host = star, experts = star,
          shared = star;
  zigzag.placement = Placement::zigzag;
  reach.reach = 2;
  ring.attention = Attention::ring;
  tree.tree = true;
  tree.spread = true;
  host.kv_memory = KvMemory::host;
  experts.experts = shared.shared_expert = true;
  for (const Setting& setting : {star, zigzag, reach, ring, tree, host, experts, shared})
    expect_same_bits_as_alone(setting);
}

TEST_F(Equalities, KvInFp8IsRounded) {
  Setting dense;
  dense.attention = Attention::dense;
  Setting f8 = dense;
  f8.has_f8_kv = true;
  const Outcome plain = run_alone(world_, dense);
  const Outcome rounded = run_alone(world_, f8);
  if (!world_.is_root()) return;
  const double difference = relative_difference(rounded.logits, plain.logits);
  EXPECT_GT(difference, 1e-3);
  EXPECT_LT(difference, 1.0 / 16);  // a number of FP8 is wrong by that at most
}

TEST_F(Equalities, LayersWithoutRopeHaveTheSameBitsOnAnyRanks) {
  Setting star;
  star.ropes = true;
  star.block = 90;
  star.anchor = 40;
  Setting zigzag = star, recompute = star, reach = star, ring = star, tree = star, recall = star,
          windows = star;
  zigzag.placement = Placement::zigzag;
  recompute.anchor_mode = AnchorMode::recompute;
  reach.reach = 2;
  ring.attention = Attention::ring;
  tree.tree = tree.spread = true;
  recall.recall = 45;
  windows.windows = {0, 61, 0};
  for (const Setting& setting : {star, zigzag, recompute, reach, ring, tree, recall, windows})
    expect_same_bits_as_alone(setting);
  expect_close_to_dense(ring);
  windows.windows = {61, 20, 61};
  expect_close_to_dense(windows);
  recall.recall = 700;  // everything
  expect_close_to_dense(recall);

  Setting dense = ring, rotated = ring;
  dense.attention = rotated.attention = Attention::dense;
  rotated.ropes = false;
  const Outcome a = run_alone(world_, dense), b = run_alone(world_, rotated);
  if (world_.is_root()) {
    EXPECT_GT(relative_difference(a.logits, b.logits), 1e-3);
  }
}

TEST_F(Equalities, NormsOfOutputsHaveTheSameBitsOnAnyRanks) {
  Setting star;
  star.norms_outputs = true;
  star.block = 90;
  star.anchor = 40;
  Setting reach = star, ring = star, tree = star, recall = star, windows = star;
  reach.reach = 2;
  ring.attention = Attention::ring;
  tree.tree = tree.spread = true;
  recall.recall = 45;
  windows.windows = {61, 61, 0};
  for (const Setting& setting : {star, reach, ring, tree, recall, windows})
    expect_same_bits_as_alone(setting);
  expect_close_to_dense(ring);
}

TEST_F(Equalities, RoundedRowsHaveTheSameBitsOnAnyRanks) {
  Setting star;
  star.rounds_rows = true;
  star.block = 90;
  star.anchor = 40;
  Setting recompute = star, recall = star, ring = star, experts = star, f8_kv = star, shared = star;
  recompute.anchor_mode = AnchorMode::recompute;
  recall.recall = 45;
  ring.attention = Attention::ring;
  experts.experts = shared.shared_expert = true;
  f8_kv.has_f8_kv = true;
  for (const Setting& setting : {star, recompute, recall, ring, experts, f8_kv, shared})
    expect_same_bits_as_alone(setting);
}

// A model whose weights are made FP8 does what one does whose weights are these numbers in fp32.
TEST_F(Equalities, MadeFp8WeightsAreTheirNumbers) {
  if (on_gpu()) GTEST_SKIP() << "a GPU sums thin FP8 products in another order";
  for (const ModelConfig& config :
       {tiny_config(), tiny_mixture_config(), tiny_shared_expert_config(false)}) {
    ModelWeights made = ModelWeights::random(config, Dtype::bf16, 7);
    made.make_fp8();
    for (const WeightView& w : made.all())
      if (w.dtype == Dtype::f8) made.fill(w);
    ModelWeights wide = made;
    std::list<std::vector<float>> numbers;
    const auto widen = [&](WeightView& w) {
      if (w.dtype != Dtype::f8) return;
      std::vector<float>& to = numbers.emplace_back();
      for (std::int64_t i = 0; i < w.n_rows * w.n_cols; ++i) {
        to.push_back(f8_to_f32(std::to_integer<std::uint8_t>(w.data[i])) *
                     w.scales_of_row(i / w.n_cols)[0]);
        EXPECT_EQ(bf16_to_f32(f32_to_bf16(to.back())), to.back());  // a GPU widens without rounding
      }
      w = {reinterpret_cast<const std::byte*>(to.data()), Dtype::f32, w.n_rows, w.n_cols};
    };
    for (LayerWeights& w : wide.layers) {
      for (WeightView* matrix :
           {&w.q_proj, &w.k_proj, &w.v_proj, &w.o_proj, &w.gate_proj, &w.up_proj, &w.down_proj})
        widen(*matrix);
      for (Expert& expert : w.experts)
        for (WeightView* matrix : {&expert.gate_proj, &expert.up_proj, &expert.down_proj})
          widen(*matrix);
    }
    EXPECT_GE(numbers.size(), 21U);
    const auto logits_of = [&](const ModelWeights& weights) {
      const Communicator self = world_.split(world_.rank());
      const auto backend = test_backend(1);
      Decoder decoder(config, weights, *backend,
                      std::max(backend->chunk_rows(), Answerer::kMaxRows));
      PlanRequest request;
      request.block_size = 200;
      const BlockPlan plan = BlockPlan::make(request, 700, 1);
      Encoder encoder(decoder, self);
      const DocumentKv kv = encoder.encode(plan, random_tokens(700, 1));
      QueryExchange exchange = Answerer::exchange(decoder, self);
      return Answerer(decoder, exchange, kv, {}).logits_of(random_tokens(9, 50), 3);
    };
    EXPECT_TRUE(same_bits(logits_of(made), logits_of(wide)));
  }
}

TEST_F(Equalities, ManySmallBlocks) {
  Setting setting;
  setting.block = 16;
  setting.anchor = 16;
  setting.n_context = 333;
  expect_same_bits_as_alone(setting);
}

TEST_F(Equalities, OneBlockIsDense) {
  Setting setting;
  setting.block = 1000;
  setting.anchor = 1000;
  expect_close_to_dense(setting);
}

TEST_F(Equalities, ReachAllIsDense) {
  Setting setting;
  setting.block = 70;
  setting.anchor = 30;
  setting.reach = kReachAll;
  expect_close_to_dense(setting);
}

TEST_F(Equalities, RingIsDenseOnAnyRanks) {
  Setting setting;
  setting.attention = Attention::ring;
  setting.placement = Placement::zigzag;
  setting.block = 64;
  expect_close_to_dense(setting);
  expect_same_bits_as_alone(setting);
}

TEST_F(Equalities, StarIsNotDense) {  // the tests above could not tell otherwise
  Setting setting;
  setting.block = 70;
  setting.anchor = 30;
  expect_not_dense(setting);
}

TEST_F(Equalities, AnchorBroadcastEqualsRecompute) {
  for (const std::int64_t anchor : {50, 200}) {
    Setting setting;
    setting.anchor = anchor;
    const Outcome broadcast = run(world_, setting);
    setting.anchor_mode = AnchorMode::recompute;
    const Outcome recompute = run(world_, setting);
    expect_close(broadcast, recompute);
  }
}

TEST_F(Equalities, QueriesSpreadOverRanksKeepTheirBits) {
  Setting setting;
  const Outcome one = run(world_, setting);
  setting.spread = true;
  const Outcome spread = run(world_, setting);
  expect_same_bits(one, spread);
}

TEST_F(Equalities, TreeMergeKeepsTheBits) {
  for (const bool spread : {false, true}) {
    for (const Placement placement : {Placement::contiguous, Placement::zigzag}) {
      Setting setting;
      setting.block = 50;
      setting.anchor = 50;
      setting.spread = spread;
      setting.placement = placement;
      const Outcome gather = run(world_, setting);
      setting.tree = true;
      const Outcome tree = run(world_, setting);
      expect_same_bits(gather, tree);
    }
  }
}

TEST_F(Equalities, AQueryDoesNotSeeItsBatchMates) {
  const Outcome batch = run(world_, {}, 1, 4);
  const Outcome first = run(world_, {}, 1, 1);
  EXPECT_EQ(batch.answers[0], first.answers[0]);
}

TEST_F(Equalities, DrawnAnswersAreTheSameOnAnyRanksAndInAnyBatch) {
  Setting setting;
  setting.sampling = {1.0, 0.9};
  const Outcome four = run(world_, setting, 1, 4);
  const Outcome one = run(world_, setting, 1, 1);
  EXPECT_EQ(four.answers[0], one.answers[0]);
  expect_same_bits(four, run_alone(world_, setting));
  const Outcome greedy = run(world_, {});
  EXPECT_NE(four.answers, greedy.answers);  // nothing would be drawn
  setting.only_first_is_drawn = true;
  const Outcome mixed = run(world_, setting);
  EXPECT_EQ(mixed.answers[0], four.answers[0]);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_EQ(mixed.answers[i], greedy.answers[i]);
}

TEST_F(Equalities, MixturesOfExpertsHaveTheSameBitsOnAnyRanks) {
  Setting star;
  star.experts = true;
  star.block = 90;
  star.anchor = 40;
  expect_same_bits_as_alone(star);
  Setting spread = star;
  spread.spread = true;
  expect_same_bits_as_alone(spread);
  Setting reach = star;
  reach.reach = 1;
  expect_same_bits_as_alone(reach);
  Setting recall = star;
  recall.recall = 30;
  expect_same_bits_as_alone(recall);
  Setting ring = star;
  ring.attention = Attention::ring;
  expect_same_bits_as_alone(ring);
}

TEST_F(Equalities, MixturesOfExpertsTreatEveryQueryAndThreadAlike) {
  Setting setting;
  setting.experts = true;
  const Outcome batch = run(world_, setting, 1, 4);
  const Outcome first = run(world_, setting, 1, 1);
  const Outcome three = run(world_, setting, 3, 4);
  EXPECT_EQ(batch.answers[0], first.answers[0]);
  expect_same_bits(batch, three);
}

TEST_F(Equalities, MixturesOfExpertsInExactModesAreDense) {
  if (on_gpu()) GTEST_SKIP() << "bf16 rounds a row to other experts now and then";
  Setting setting;
  setting.experts = true;
  setting.block = 70;
  setting.anchor = 30;
  setting.reach = kReachAll;
  expect_close_to_dense(setting);
  setting.attention = Attention::ring;
  expect_close_to_dense(setting);
}

// On the CPU as well the layers pass through the window and the feed, by plain copies.
TEST_F(Equalities, BlocksInHostMemoryGiveTheSameBits) {
  for (const std::int64_t reach : {0, 1}) {
    for (const AnchorMode anchor_mode : {AnchorMode::broadcast, AnchorMode::recompute}) {
      if (reach > 0 && anchor_mode == AnchorMode::recompute) continue;
      Setting setting;
      setting.block = 60;
      setting.anchor = 50;
      setting.reach = reach;
      setting.anchor_mode = anchor_mode;
      const Outcome device = run(world_, setting);
      setting.kv_memory = KvMemory::host;
      const Outcome host = run(world_, setting);
      expect_same_bits(device, host);
    }
  }
}

TEST_F(Equalities, ThreadsDoNotMatter) {
  for (const std::int64_t recall : {0, 40}) {
    Setting setting;
    setting.recall = recall;
    setting.anchor = 100;
    const Outcome one = run(world_, setting, 1);
    const Outcome three = run(world_, setting, 3);
    expect_same_bits(one, three);
  }
}

TEST_F(Equalities, LoadedBlocksAreKeptAndGiveTheSameBits) {
  Setting setting;
  for (const bool has_f8_kv : {false, true}) {
    TinyModel model;
    if (has_f8_kv) model.backend->keep_kv_in_f8();
    PlanRequest request;
    request.block_size = 90;
    for (const std::int64_t reach : {0, 1, -1}) {  // -1: recall
      request.reach = std::max<std::int64_t>(0, reach);
      if (reach < 0) {
        request.reach.reset();
        request.anchor_size = TokenShare{20};
        request.recall = TokenShare{30};
      }
      const BlockPlan plan = BlockPlan::make(request, setting.n_context, world_.size());
      const std::vector<Token> context = random_tokens(setting.n_context, 1);
      Encoder encoder(model.decoder, world_);
      QueryExchange exchange = Answerer::exchange(model.decoder, world_);
      const DocumentKv fresh = encoder.encode(plan, context);
      std::map<BlockId, KvCache> loaded;  // every other block, and block 0 among them
      for (const auto& [i, cache] : fresh.blocks) {
        if (i % 2 != 0) continue;
        KvCache copy(*model.backend, cache.n_layers(), cache.n_tokens(), cache.layout());
        for (std::int64_t layer = 0; layer < cache.n_layers(); ++layer) {
          model.backend->upload(bytes_of(model, cache, cache.k(layer)), copy.k(layer));
          model.backend->upload(bytes_of(model, cache, cache.v(layer)), copy.v(layer));
        }
        loaded.emplace(i, std::move(copy));
      }
      const DocumentKv resumed = encoder.encode(plan, context, {}, std::move(loaded));
      ASSERT_EQ(resumed.blocks.size(), fresh.blocks.size());
      for (const auto& [i, cache] : fresh.blocks) {
        for (std::int64_t layer = 0; layer < cache.n_layers(); ++layer) {
          const KvCache& again = resumed.blocks.at(i);
          EXPECT_EQ(bytes_of(model, cache, again.k(layer)), bytes_of(model, cache, cache.k(layer)));
          EXPECT_EQ(bytes_of(model, cache, again.v(layer)), bytes_of(model, cache, cache.v(layer)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace starattn::testing
