// SPDX-License-Identifier: Apache-2.0
// The equalities of the method, on however many ranks mpirun started: the same bits on any number
// of ranks and with any placement, exact modes equal to dense, one query alone equal to the same in
// a batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "../star/tiny_model.h"
#include "mpi/communicator.h"
#include "star/encode.h"

namespace starattn {
namespace {

using testing::random_tokens;
using testing::TinyModel;

struct Setting {
  std::int64_t n_context = 700;
  std::int64_t block = 200;
  std::int64_t anchor = 200;
  std::int64_t reach = 0;
  std::int64_t recall = 0;
  std::int64_t recall_rows = 24;
  Attention attention = Attention::star;
  Placement placement = Placement::contiguous;
  AnchorMode anchor_mode = AnchorMode::broadcast;
  bool spread = false;
  bool tree = false;
  KvMemory kv_memory = KvMemory::device;
  Sampling sampling;
  bool experts = false;
};

struct Outcome {
  std::vector<float> logits;                // of the last 3 rows of a query, on rank 0
  std::vector<std::vector<Token>> answers;  // of all queries, on every rank
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  double scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    scale = std::max(scale, std::abs(static_cast<double>(b[i])));
    EXPECT_FALSE(std::isnan(a[i]));
  }
  return worst / scale;
}

// K or V of one layer, on the host.
std::vector<std::byte> bytes_of(const TinyModel& model, const KvCache& cache,
                                const std::byte* part) {
  std::vector<std::byte> bytes(cache.part_bytes());
  model.backend->download(part, bytes);
  return bytes;
}

// fp32 with another order of sums; on a GPU, activations rounded to bf16 (2^-9) over three layers.
double rounding() {
  return testing::on_gpu() ? 3e-2 : 2e-5;
}

std::vector<QueryJob> jobs(std::size_t n) {
  std::vector<QueryJob> all;
  for (std::size_t i = 0; i < n; ++i) {
    // Ragged; the third is longer than a step's rows and than a block.
    const std::int64_t length = i == 2 ? 230 : 3 + 7 * static_cast<std::int64_t>(i);
    all.push_back({random_tokens(length, 100 + i), 4 + static_cast<std::int64_t>(i), i});
  }
  return all;
}

Outcome run(const Communicator& group, const Setting& setting, int n_threads = 1,
            std::size_t n_queries = 4) {
  TinyModel model(n_threads, Dtype::bf16,
                  setting.experts ? testing::tiny_mixture_config() : testing::tiny_config());
  PlanRequest request;
  request.attention = setting.attention;
  if (setting.attention == Attention::star) {
    request.block_size = setting.block;
    request.anchor_size = TokenShare{setting.anchor};
    request.reach = setting.reach;
    request.recall = TokenShare{setting.recall};
    if (setting.recall > 0) request.recall_rows = TokenShare{setting.recall_rows};
  } else if (setting.attention == Attention::ring) {
    request.block_size = setting.block;
  }
  if (setting.recall == 0) request.placement = setting.placement;
  const BlockPlan plan = BlockPlan::make(request, setting.n_context, group.size());
  const std::vector<Token> context = random_tokens(setting.n_context, 1);
  Encoder encoder(model.decoder, group);
  const DocumentKv kv = encoder.encode(
      plan, context, {.anchor_mode = setting.anchor_mode, .kv_memory = setting.kv_memory});

  AnswerOptions options;
  options.sampling = setting.sampling;
  options.spread_queries = setting.spread;
  options.tree_merge = setting.tree;
  QueryExchange exchange = Answerer::exchange(model.decoder, group);
  Answerer answerer(model.decoder, exchange, kv, options);
  Outcome outcome;
  outcome.logits = answerer.logits_of(random_tokens(9, 50), 3);
  const std::vector<QueryJob> all = jobs(n_queries);
  const std::vector<QueryResult> results = answerer.answer(all);
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::string bytes(reinterpret_cast<const char*>(results[i].tokens.data()),
                      results[i].tokens.size() * sizeof(Token));
    bytes = group.bcast_text(bytes, 0);
    std::vector<Token> tokens(bytes.size() / sizeof(Token));
    std::memcpy(tokens.data(), bytes.data(), bytes.size());
    outcome.answers.push_back(tokens);
  }
  return outcome;
}

// The same setting on this one rank alone.
Outcome run_alone(const Communicator& world, const Setting& setting) {
  const Communicator self = world.split(world.rank());
  return run(self, setting);
}

class Equalities : public ::testing::Test {
 protected:
  Communicator world_ = Communicator::world();

  void expect_same_bits_as_alone(const Setting& setting) {
    const Outcome together = run(world_, setting);
    const Outcome alone = run_alone(world_, setting);
    if (world_.is_root()) {
      EXPECT_TRUE(same_bits(together.logits, alone.logits));
    }
    EXPECT_EQ(together.answers, alone.answers);
  }
  void expect_close_to_dense(const Setting& setting) {
    Setting dense = setting;
    dense.attention = Attention::dense;
    const Outcome together = run(world_, setting);
    const Outcome exact = run_alone(world_, dense);
    if (world_.is_root()) {
      EXPECT_LT(relative_difference(together.logits, exact.logits), rounding());
    }
  }
};

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
  if (world_.is_root()) {
    EXPECT_TRUE(same_bits(contiguous.logits, zigzag.logits));
  }
  EXPECT_EQ(contiguous.answers, zigzag.answers);
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

TEST_F(Equalities, RecallHasTheSameBitsOnAnyRanks) {
  for (const std::int64_t recall : {1, 30, 100}) {
    for (const std::int64_t anchor : {0, 10, 60}) {
      Setting setting;
      setting.block = 60;
      setting.anchor = anchor;
      setting.recall = recall;
      expect_same_bits_as_alone(setting);
    }
  }
}

TEST_F(Equalities, RecallWorksInRaggedCases) {
  for (const std::int64_t n : {1, 60, 61, 119, 121, 305}) {
    for (const std::int64_t rows : {1, 60}) {
      Setting setting;
      setting.n_context = n;
      setting.block = 60;
      setting.anchor = 7;
      setting.recall = 40;
      setting.recall_rows = rows;
      expect_same_bits_as_alone(setting);
    }
  }
}

TEST_F(Equalities, RecallOfEverythingIsDense) {
  for (const std::int64_t anchor : {0, 20, 70}) {
    Setting setting;
    setting.block = 70;
    setting.anchor = anchor;
    setting.recall = 700;
    expect_close_to_dense(setting);
  }
}

TEST_F(Equalities, RecallOfAllTheAnchorIsALargerAnchor) {
  Setting larger;
  larger.n_context = 160;
  larger.block = 80;
  larger.anchor = 80;
  Setting recall = larger;
  recall.anchor = 30;
  recall.recall = 50;  // the rest of the only block before
  const Outcome one = run(world_, larger);
  const Outcome other = run(world_, recall);
  if (world_.is_root()) {
    EXPECT_LT(relative_difference(one.logits, other.logits), rounding());
  }
}

TEST_F(Equalities, RecallOfOneBlockIsDense) {
  Setting setting;
  setting.block = 1000;
  setting.anchor = 100;
  setting.recall = 50;
  expect_close_to_dense(setting);
}

TEST_F(Equalities, RecallIsNeitherStarNorDense) {  // the tests above could not tell otherwise
  Setting setting;
  setting.block = 70;
  setting.anchor = 10;
  setting.recall = 20;
  const Outcome recall = run(world_, setting);
  setting.recall = 0;
  const Outcome star = run(world_, setting);
  setting.attention = Attention::dense;
  const Outcome dense = run_alone(world_, setting);
  if (world_.is_root()) {
    EXPECT_GT(relative_difference(recall.logits, star.logits), 1e-3);
    EXPECT_GT(relative_difference(recall.logits, dense.logits), 1e-3);
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
  Setting dense = setting;
  dense.attention = Attention::dense;
  const Outcome star = run(world_, setting);
  const Outcome exact = run_alone(world_, dense);
  if (world_.is_root()) {
    EXPECT_GT(relative_difference(star.logits, exact.logits), 1e-3);
  }
}

TEST_F(Equalities, AnchorBroadcastEqualsRecompute) {
  for (const std::int64_t anchor : {50, 200}) {
    Setting setting;
    setting.anchor = anchor;
    const Outcome broadcast = run(world_, setting);
    setting.anchor_mode = AnchorMode::recompute;
    const Outcome recompute = run(world_, setting);
    if (world_.is_root()) {
      EXPECT_LT(relative_difference(broadcast.logits, recompute.logits), rounding());
    }
  }
}

TEST_F(Equalities, QueriesSpreadOverRanksKeepTheirBits) {
  Setting setting;
  const Outcome one = run(world_, setting);
  setting.spread = true;
  const Outcome spread = run(world_, setting);
  EXPECT_EQ(one.answers, spread.answers);
  if (world_.is_root()) {
    EXPECT_TRUE(same_bits(one.logits, spread.logits));
  }
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
      EXPECT_EQ(gather.answers, tree.answers);
      if (world_.is_root()) {
        EXPECT_TRUE(same_bits(gather.logits, tree.logits));
      }
    }
  }
}

TEST_F(Equalities, AQueryDoesNotSeeItsBatchMates) {
  const Outcome batch = run(world_, {}, 1, 4);
  const Outcome first = run(world_, {}, 1, 1);
  EXPECT_EQ(batch.answers[0], first.answers[0]);
}

// 300 queries of 3 tokens, 128 rows a step: the first 42 begin, with two tokens of the 43rd.
TEST_F(Equalities, DrawnAnswersAreTheSameOnAnyRanksAndInAnyBatch) {
  Setting setting;
  setting.sampling = {1.0, 0.9};
  const Outcome four = run(world_, setting, 1, 4);
  const Outcome one = run(world_, setting, 1, 1);
  EXPECT_EQ(four.answers[0], one.answers[0]);
  EXPECT_EQ(four.answers, run_alone(world_, setting).answers);
  EXPECT_NE(four.answers, run(world_, {}).answers);  // nothing would be drawn
}

TEST_F(Equalities, AStopOnAnyRankLeavesTheQueriesThatHaveNotBegun) {
  TinyModel model;
  PlanRequest request;
  request.block_size = 90;
  const std::vector<Token> context = random_tokens(400, 1);
  const BlockPlan plan = BlockPlan::make(request, 400, world_.size());
  Encoder encoder(model.decoder, world_);
  QueryExchange exchange = Answerer::exchange(model.decoder, world_);
  const DocumentKv kv = encoder.encode(plan, context);
  std::vector<QueryJob> all;
  for (std::uint64_t i = 0; i < 300; ++i) all.push_back({random_tokens(3, 100 + i), 4, i});

  for (const bool spread : {false, true}) {
    AnswerOptions options;
    options.spread_queries = spread;
    Answerer answerer(model.decoder, exchange, kv, options);
    const std::vector<QueryResult> whole = answerer.answer(all);
    EXPECT_EQ(answerer.n_left(), 0);
    int n_asked = 0;
    options.stop = [&] { return world_.rank() == world_.size() - 1 && ++n_asked == 2; };
    Answerer stopped(model.decoder, exchange, kv, options);
    const std::vector<QueryResult> some = stopped.answer(all);
    std::int64_t n_answered = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (some[i].reason == FinishReason::not_begun) continue;
      ++n_answered;
      EXPECT_EQ(some[i].reason, whole[i].reason);
      EXPECT_EQ(some[i].tokens, whole[i].tokens);
    }
    if (!world_.is_root()) continue;
    EXPECT_GE(n_answered, 42);
    EXPECT_LT(n_answered, 150);
    EXPECT_EQ(n_answered + stopped.n_left(), 300);
  }
}

TEST_F(Equalities, SpreadAnswersReachTheFirstRankAsTheyFinish) {
  TinyModel model;
  const std::vector<Token> context = random_tokens(400, 1);
  PlanRequest request;
  request.block_size = 90;
  const BlockPlan plan = BlockPlan::make(request, 400, world_.size());
  Encoder encoder(model.decoder, world_);
  QueryExchange exchange = Answerer::exchange(model.decoder, world_);
  const DocumentKv kv = encoder.encode(plan, context);
  std::vector<QueryJob> all;  // each query needs two steps more than the one before
  for (std::uint64_t i = 0; i < 7; ++i)
    all.push_back({random_tokens(3, 100 + i), 1 + 2 * static_cast<std::int64_t>(i), i});

  AnswerOptions options;
  options.spread_queries = true;
  int n_steps = 0;
  std::map<std::size_t, int> step_of;
  std::map<std::size_t, QueryResult> handed_out;
  options.poll = [&] { ++n_steps; };
  options.finished = [&](std::size_t i, const QueryResult& result) {
    step_of[i] = n_steps;
    handed_out[i] = result;
  };
  Answerer answerer(model.decoder, exchange, kv, options);
  const std::vector<QueryResult> results = answerer.answer(all);
  EXPECT_EQ(handed_out.size(), world_.is_root() ? all.size() : 0);
  for (const auto& [i, result] : handed_out) {
    EXPECT_EQ(std::ssize(result.tokens), all[i].max_new_tokens);
    EXPECT_EQ(results[i].tokens, result.tokens);
    EXPECT_LE(step_of[i], all[i].max_new_tokens);  // not when the document ends: 13
  }
}

TEST_F(Equalities, QueriesWithoutRoomForTheirKvWaitForTheirTurn) {
  TinyModel model;
  const std::vector<Token> context = random_tokens(400, 1);
  PlanRequest request;
  request.block_size = 90;
  const BlockPlan plan = BlockPlan::make(request, 400, world_.size());
  Encoder encoder(model.decoder, world_);
  QueryExchange exchange = Answerer::exchange(model.decoder, world_);
  const DocumentKv kv = encoder.encode(plan, context);
  std::vector<QueryJob> all;
  for (std::uint64_t i = 0; i < 12; ++i) all.push_back({random_tokens(3, 100 + i), 5, i});
  const std::uint64_t one = (3 + 5) * model.config.kv_bytes_per_token(model.backend->kv_dtype());

  for (const bool spread : {false, true}) {
    AnswerOptions options;
    options.spread_queries = spread;
    const std::vector<QueryResult> whole =
        Answerer(model.decoder, exchange, kv, options).answer(all);
    for (const std::uint64_t room : {std::uint64_t{0}, one, 3 * one + 1}) {
      options.query_kv_bytes = room;
      std::vector<std::size_t> order;
      options.finished = [&](std::size_t i, const QueryResult&) { order.push_back(i); };
      int n_steps = 0;
      options.poll = [&] { ++n_steps; };
      Answerer answerer(model.decoder, exchange, kv, options);
      const std::vector<QueryResult> some = answerer.answer(all);
      const std::size_t n_at_once = room > one ? 3 : 1;
      const std::size_t n_query_ranks = spread ? static_cast<std::size_t>(world_.size()) : 1;
      const std::size_t n_of_first = (all.size() + n_query_ranks - 1) / n_query_ranks;
      EXPECT_EQ(n_steps, 5 * ((n_of_first + n_at_once - 1) / n_at_once));
      if (!world_.is_root()) continue;
      EXPECT_EQ(order.size(), all.size());
      if (!spread) {
        EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
      }
      for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(some[i].tokens, whole[i].tokens);
    }
  }
}

TEST_F(Equalities, AQueryThatNoMemoryHoldsIsAnErrorOnAllRanks) {
  TinyModel model;
  PlanRequest request;
  request.block_size = 90;
  const BlockPlan plan = BlockPlan::make(request, 400, world_.size());
  Encoder encoder(model.decoder, world_);
  QueryExchange exchange = Answerer::exchange(model.decoder, world_);
  const DocumentKv kv = encoder.encode(plan, random_tokens(400, 1));
  std::vector<QueryJob> all(2, {random_tokens(3, 100), 4, 0});
  all.push_back({random_tokens(3, 102), std::int64_t{1} << 44, 0});
  AnswerOptions options;
  int n_finished = 0;
  options.finished = [&](std::size_t, const QueryResult&) { ++n_finished; };
  Answerer answerer(model.decoder, exchange, kv, options);
  try {
    answerer.answer(all);
    FAIL() << "a petabyte was found";
  } catch (const AgreedError& error) {
    EXPECT_EQ(error.exit(), Exit::bad_data);
    EXPECT_NE(std::string(error.what()).find("query 2 of 3 tokens"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(n_finished, world_.is_root() ? 2 : 0);  // those before it are answered
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
  EXPECT_EQ(batch.answers, three.answers);
  if (world_.is_root()) {
    EXPECT_TRUE(same_bits(batch.logits, three.logits));
  }
}

TEST_F(Equalities, MixturesOfExpertsInExactModesAreDense) {
  if (testing::on_gpu()) GTEST_SKIP() << "bf16 rounds a row to other experts now and then";
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
      EXPECT_EQ(device.answers, host.answers);
      if (world_.is_root()) {
        EXPECT_TRUE(same_bits(device.logits, host.logits));
      }
    }
  }
}

TEST_F(Equalities, RecallFromHostMemoryHasTheSameBits) {
  Setting setting;
  setting.block = 60;
  setting.anchor = 20;
  setting.recall = 30;
  const Outcome device = run(world_, setting);
  setting.kv_memory = KvMemory::host;
  const Outcome host = run(world_, setting);
  EXPECT_EQ(device.answers, host.answers);
  if (world_.is_root()) {
    EXPECT_TRUE(same_bits(device.logits, host.logits));
  }
}

TEST_F(Equalities, ThreadsDoNotMatter) {
  for (const std::int64_t recall : {0, 40}) {
    Setting setting;
    setting.recall = recall;
    setting.anchor = 100;
    const Outcome one = run(world_, setting, 1);
    const Outcome three = run(world_, setting, 3);
    if (world_.is_root()) {
      EXPECT_TRUE(same_bits(one.logits, three.logits));
    }
    EXPECT_EQ(one.answers, three.answers);
  }
}

TEST_F(Equalities, LoadedBlocksAreKeptAndGiveTheSameBits) {
  Setting setting;
  TinyModel model;
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
      KvCache copy(*model.backend, cache.n_layers(), cache.n_tokens(), model.config.kv_width());
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

}  // namespace
}  // namespace starattn
