// SPDX-License-Identifier: Apache-2.0
// The equalities of layers with windows: the same bits on any number of ranks, and star is exact
// where every layer has one, whatever the blocks.
#include "equalities.h"

#include <map>

namespace starattn::testing {
namespace {

class WindowEqualities : public Equalities {
 protected:
  void expect_same_outcome(const Setting& one, const Setting& other) {
    const Outcome a = run(world_, one);
    const Outcome b = run(world_, other);
    EXPECT_EQ(a.answers, b.answers);
    if (world_.is_root()) {
      EXPECT_TRUE(same_bits(a.logits, b.logits));
    }
  }
};

// Windows within a block, as long as one, and over several.
constexpr std::int64_t kWindows[] = {1, 2, 17, 60, 61, 62, 150, 1000};

Setting with_windows(std::vector<std::int64_t> windows) {
  Setting setting;
  setting.n_context = 305;
  setting.block = 60;
  setting.anchor = 20;
  setting.windows = std::move(windows);
  return setting;
}

TEST_F(WindowEqualities, HaveTheSameBitsOnAnyRanks) {
  for (const std::int64_t w : kWindows) {
    SCOPED_TRACE(w);
    expect_same_bits_as_alone(with_windows({w, 0, w}));
    expect_same_bits_as_alone(with_windows({0, w, 0}));
  }
}

TEST_F(WindowEqualities, OfAllLayersMakeStarExact) {
  for (const std::int64_t w : kWindows) {
    for (const std::int64_t block : {7, 60, 128, 400}) {
      SCOPED_TRACE(w);
      SCOPED_TRACE(block);
      Setting setting = with_windows({w, w, w});
      setting.block = block;
      setting.anchor = 5;
      expect_close_to_dense(setting);
    }
  }
}

TEST_F(WindowEqualities, OfDifferentWidthsMakeStarExact) {
  for (const std::vector<std::int64_t>& windows :
       {std::vector<std::int64_t>{3, 90, 40}, std::vector<std::int64_t>{200, 1, 61}}) {
    expect_close_to_dense(with_windows(windows));
    expect_same_bits_as_alone(with_windows(windows));
  }
}

TEST_F(WindowEqualities, OneBlockIsDense) {
  Setting setting = with_windows({30, 0, 70});
  setting.block = 1000;
  setting.anchor = 1000;
  expect_close_to_dense(setting);
}

TEST_F(WindowEqualities, WiderThanTheDocumentAreNone) {
  Setting dense = with_windows({});
  dense.attention = Attention::dense;
  Setting wide = dense;
  wide.windows = {2000, 2000, 2000};
  const Outcome none = run_alone(world_, dense);
  const Outcome all = run_alone(world_, wide);
  expect_close(all, none);
}

TEST_F(WindowEqualities, HideTokens) {  // the tests above could not tell otherwise
  Setting dense = with_windows({});
  dense.attention = Attention::dense;
  const Outcome plain = run_alone(world_, dense);
  for (const std::int64_t w : {20, 100, 300}) {
    for (const std::vector<std::int64_t>& windows :
         {std::vector<std::int64_t>{w, 0, 0}, std::vector<std::int64_t>{0, 0, w}}) {
      Setting setting = dense;
      setting.windows = windows;
      expect_far(run_alone(world_, setting), plain, 1e-4);
    }
  }
}

TEST_F(WindowEqualities, StarWithPlainLayersIsNotDense) {
  expect_not_dense(with_windows({30, 0, 30}));
}

TEST_F(WindowEqualities, GoWithRecall) {
  for (const std::int64_t w : {20, 61, 150}) {
    for (const std::int64_t anchor : {0, 20}) {
      Setting setting = with_windows({w, 0, 0});
      setting.anchor = anchor;
      setting.recall = 30;
      expect_same_bits_as_alone(setting);
      setting.windows = {0, w, 0};
      expect_same_bits_as_alone(setting);
      setting.recall = 305;  // everything
      expect_close_to_dense(setting);
    }
  }
}

TEST_F(WindowEqualities, GoWithRingAndReach) {
  for (const std::int64_t w : {20, 61, 150}) {
    Setting ring = with_windows({w, 0, w});
    ring.attention = Attention::ring;
    expect_close_to_dense(ring);
    expect_same_bits_as_alone(ring);
    Setting reach = with_windows({w, 0, w});
    reach.reach = 3;
    expect_same_bits_as_alone(reach);
    reach.windows = {w, w, w};
    expect_close_to_dense(reach);
  }
}

TEST_F(WindowEqualities, WorkInRaggedCases) {
  for (const std::int64_t n : {1, 2, 59, 60, 61, 119, 121}) {
    for (const std::int64_t w : {1, 2, 60, 100}) {
      Setting setting = with_windows({w, 0, w});
      setting.n_context = n;
      expect_same_bits_as_alone(setting);
    }
  }
}

TEST_F(WindowEqualities, FromHostMemoryHaveTheSameBits) {
  for (const std::int64_t recall : {0, 30}) {
    Setting device = with_windows({61, 0, 20});
    device.recall = recall;
    Setting host = device;
    host.kv_memory = KvMemory::host;
    expect_same_outcome(device, host);
  }
}

TEST_F(WindowEqualities, OfKeysInFp8HaveTheSameBitsOnAnyRanks) {
  Setting setting = with_windows({61, 0, 20});
  setting.has_f8_kv = true;
  expect_same_bits_as_alone(setting);
  setting.recall = 30;
  expect_same_bits_as_alone(setting);
  setting.kv_memory = KvMemory::host;
  expect_same_bits_as_alone(setting);
}

TEST_F(WindowEqualities, OfSpreadQueriesAndTreesHaveTheSameBits) {
  const Setting setting = with_windows({61, 0, 20});
  Setting spread = setting;
  spread.spread = true;
  spread.tree = true;
  const Outcome one = run(world_, setting);
  const Outcome other = run(world_, spread);
  EXPECT_EQ(one.answers, other.answers);
}

TEST_F(WindowEqualities, WithSinksHaveTheSameBitsOnAnyRanks) {
  Setting star = with_windows({61, 0, 20});
  star.sinks = true;
  Setting recall = star, ring = star, exact = star, spread = star, f8 = star;
  recall.recall = 30;
  ring.attention = Attention::ring;
  spread.spread = spread.tree = true;
  f8.has_f8_kv = true;
  exact.windows = {61, 61, 20};
  for (const Setting& setting : {star, recall, ring, spread, f8})
    expect_same_bits_as_alone(setting);
  expect_close_to_dense(exact);
  expect_close_to_dense(ring);
  recall.recall = 305;
  expect_close_to_dense(recall);

  Setting without = star;
  without.windows = {0, 0, 0};
  without.attention = Attention::dense;
  Setting none = without;
  none.sinks = false;
  none.experts = true;
  const Outcome a = run_alone(world_, without), b = run_alone(world_, none);
  expect_far(a, b);
}

TEST_F(WindowEqualities, OfThreadsHaveTheSameBits) {
  const Outcome one = run(world_, with_windows({61, 0, 20}), 1);
  const Outcome three = run(world_, with_windows({61, 0, 20}), 3);
  EXPECT_EQ(one.answers, three.answers);
  if (world_.is_root()) {
    EXPECT_TRUE(same_bits(one.logits, three.logits));
  }
}

// As after a run that was stopped: every second block is there, and the others see its last tokens.
TEST_F(WindowEqualities, OfBlocksThatWereLoadedHaveTheSameBits) {
  for (const std::int64_t recall : {0, 30}) {
    ModelConfig config = tiny_config();
    config.layers = {{.window = 75}, {}, {.window = 20}};
    TinyModel model(1, Dtype::bf16, config);
    PlanRequest request;
    request.block_size = 60;
    request.anchor_size = TokenShare{20};
    request.recall = TokenShare{recall};
    if (recall > 0) request.recall_rows = TokenShare{24};
    const BlockPlan plan = BlockPlan::make(request, 305, world_.size(), config.widest_window());
    const std::vector<Token> context = random_tokens(305, 1);
    Encoder encoder(model.decoder, world_);
    const DocumentKv whole = encoder.encode(plan, context);
    const auto bytes_of = [&](const KvCache& cache) {
      std::vector<std::byte> bytes(cache.n_bytes());
      model.backend->download(cache.k(0), bytes);
      return bytes;
    };
    for (const BlockId first_kept : {0, 1}) {
      std::map<BlockId, KvCache> loaded;
      for (const auto& [i, cache] : whole.blocks) {
        if (i % 2 != first_kept) continue;
        KvCache copy(*model.backend, cache.n_layers(), cache.n_tokens(), cache.layout());
        model.backend->upload(bytes_of(cache), copy.k(0));
        loaded.emplace(i, std::move(copy));
      }
      const DocumentKv again = encoder.encode(plan, context, {}, std::move(loaded));
      for (const auto& [i, cache] : whole.blocks)
        EXPECT_EQ(bytes_of(again.blocks.at(i)), bytes_of(cache)) << i;
    }
  }
}

TEST_F(WindowEqualities, OneQueryAloneEqualsTheSameInABatch) {
  const Outcome one = run(world_, with_windows({61, 0, 20}), 1, 1);
  const Outcome four = run(world_, with_windows({61, 0, 20}), 1, 4);
  EXPECT_EQ(one.answers[0], four.answers[0]);
}

}  // namespace
}  // namespace starattn::testing
