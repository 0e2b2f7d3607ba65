// SPDX-License-Identifier: Apache-2.0
// Values that overflow are an error of the document that names the first layer, on every rank;
// nothing is saved or answered, and other queries keep their bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <list>

#include "mpi/communicator.h"
#include "star/encode.h"
#include "tiny_model.h"

namespace starattn {
namespace {

using namespace testing;

constexpr std::uint16_t kHuge = 0x7f00;  // 1.7e38 in bf16
constexpr std::int64_t kContext = 400;

class Overflows : public ::testing::Test {
 protected:
  // The tensor with every value replaced by the largest of bf16, or one row of it.
  void spoil(WeightView& w, std::int64_t row = -1) {
    const auto width = static_cast<std::size_t>(w.n_cols);
    auto& bits = spoiled_.emplace_back(width * static_cast<std::size_t>(w.n_rows));
    std::memcpy(bits.data(), w.data, w.n_bytes());
    const std::size_t first = row < 0 ? 0 : static_cast<std::size_t>(row) * width;
    std::fill_n(bits.begin() + static_cast<std::ptrdiff_t>(first), row < 0 ? bits.size() : width,
                kHuge);
    w.data = reinterpret_cast<const std::byte*>(bits.data());
  }

  struct Outcome {
    std::string error;
    std::vector<BlockId> done;
    DocumentKv kv;
  };
  Outcome encode(TinyModel& model, Attention attention, const std::vector<Token>& context,
                 std::int64_t recall = 0) {
    PlanRequest request;
    request.attention = attention;
    request.block_size = 90;
    request.anchor_size = TokenShare{30};
    request.recall = TokenShare{recall};
    const BlockPlan plan = BlockPlan::make(request, std::ssize(context), world_.size());
    Encoder encoder(model.decoder, world_);
    Outcome outcome;
    EncodeOptions options;
    options.block_done = [&](BlockId i, const KvCache&) { outcome.done.push_back(i); };
    try {
      outcome.kv = encoder.encode(plan, context, options);
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.exit(), Exit::bad_data);
      outcome.error = error.what();
    }
    return outcome;
  }

  static std::vector<Token> tokens_without(Token token, std::int64_t n, std::uint64_t seed) {
    std::vector<Token> tokens = random_tokens(n, seed);
    std::ranges::replace(tokens, token, token - 1);
    return tokens;
  }

  Communicator world_ = Communicator::world();
  std::list<std::vector<std::uint16_t>> spoiled_;
};

TEST_F(Overflows, OfAContextNameTheFirstLayerAndSaveNoBlock) {
  struct Case {
    WeightView LayerWeights::*weight;
    std::size_t layer;
    const char* words;
  };
  const Case cases[] = {
      {&LayerWeights::down_proj, 0, "layer 0 of 3, counted from 0, at"},
      {&LayerWeights::down_proj, 1, "layer 1 of 3, counted from 0, at"},
      {&LayerWeights::o_proj, 1, "layer 1 of 3, counted from 0, at"},
      {&LayerWeights::q_proj, 0, "layer 0 of 3, counted from 0, at"},  // scores are NaN
      {&LayerWeights::k_proj, 2, "layer 2 of 3, counted from 0, in its keys or values, at"},
      {&LayerWeights::v_proj, 1, "layer 1 of 3, counted from 0, in its keys or values, at"}};
  const std::pair<Attention, std::int64_t> modes[] = {
      {Attention::star, 0}, {Attention::star, 20}, {Attention::ring, 0}};
  for (const auto& [attention, recall] : modes) {
    for (const Case& c : cases) {
      SCOPED_TRACE(c.words);
      TinyModel model;
      spoil(model.weights.layers[c.layer].*c.weight);
      const Outcome outcome = encode(model, attention, random_tokens(kContext, 1), recall);
      EXPECT_NE(outcome.error.find(c.words), std::string::npos) << outcome.error;
      EXPECT_TRUE(outcome.done.empty());
    }
  }
}

TEST_F(Overflows, OfOneTokenNameItAndLeaveTheBlocksBeforeIt) {
  TinyModel model;
  spoil(model.weights.embedding, 90);  // its squares are beyond fp32
  std::vector<Token> context = tokens_without(90, kContext, 1);
  EXPECT_EQ(encode(model, Attention::star, context).error, "");
  context[200] = 90;
  const Outcome outcome = encode(model, Attention::star, context);
  EXPECT_EQ(
      outcome.error,
      "the embedding is not finite or too large for the first norm, at token 200 of the context");
  EXPECT_EQ(std::ranges::count(outcome.done, 2), 0);
  std::int64_t n_done = 0;
  for (const std::size_t n : world_.allgather(outcome.done.size())) n_done += std::int64_t(n);
  EXPECT_EQ(n_done, 4);  // of five: star's blocks do not see each other
}

TEST_F(Overflows, OfAQueryLeaveTheOthersAsTheyAre) {
  TinyModel model;
  const std::vector<Token> context = tokens_without(90, kContext, 1);
  spoil(model.weights.embedding, 90);
  const DocumentKv kv = encode(model, Attention::star, context).kv;
  std::vector<QueryJob> sound;
  for (std::uint64_t i = 0; i < 5; ++i) sound.push_back({tokens_without(90, 3, 100 + i), 4, i});
  std::vector<QueryJob> mixed = sound;
  mixed[1].tokens.assign(130, 7);  // longer than a step
  mixed[1].tokens[2] = 90;
  mixed[4].tokens[1] = 90;
  QueryExchange exchange = Answerer::exchange(model.decoder, world_);
  for (const bool spread : {false, true}) {
    AnswerOptions options;
    options.spread_queries = spread;
    options.n_logprobs = 3;
    const auto expected = Answerer(model.decoder, exchange, kv, options).answer(sound);
    std::vector<std::size_t> finished;
    options.finished = [&](std::size_t i, const QueryResult&) { finished.push_back(i); };
    const auto results = Answerer(model.decoder, exchange, kv, options).answer(mixed);
    if (!world_.is_root()) continue;
    std::ranges::sort(finished);
    EXPECT_EQ(finished, (std::vector<std::size_t>{0, 2, 3}));
    for (const std::size_t i : finished) {
      EXPECT_EQ(results[i].tokens, expected[i].tokens);
      EXPECT_EQ(results[i].logprobs, expected[i].logprobs);
    }
    for (const std::size_t i : {1, 4}) {
      EXPECT_EQ(results[i].reason, FinishReason::overflow);
      EXPECT_TRUE(results[i].logprobs.empty());
    }
    EXPECT_EQ(
        results[1].error,
        "the embedding is not finite or too large for the first norm, at token 2 of the query");
    EXPECT_EQ(
        results[4].error,
        "the embedding is not finite or too large for the first norm, at token 1 of the query");
  }
}

TEST_F(Overflows, BehindTheLastKeysAreFoundInTheLogits) {
  for (const bool in_head : {false, true}) {
    TinyModel model;
    spoil(in_head ? model.weights.lm_head : model.weights.layers[2].down_proj);
    const Outcome outcome = encode(model, Attention::star, random_tokens(kContext, 1));
    EXPECT_EQ(outcome.error, "");
    const std::vector<QueryJob> jobs(1, {random_tokens(3, 5), 4, 0});
    QueryExchange exchange = Answerer::exchange(model.decoder, world_);
    const auto results = Answerer(model.decoder, exchange, outcome.kv, {}).answer(jobs);
    if (!world_.is_root()) continue;
    EXPECT_EQ(results[0].reason, FinishReason::overflow);
    EXPECT_EQ(results[0].error,
              "values overflow behind the keys and values of layer 2, the last, at token 0 of the "
              "answer");
  }
}

// Whoever commits asks first; what one rank says ends the answers of all.
TEST_F(Overflows, AFailedCheckEndsTheAnswersOnAllRanks) {
  TinyModel model;
  const DocumentKv kv = encode(model, Attention::star, random_tokens(kContext, 1)).kv;
  std::vector<QueryJob> jobs;
  for (std::uint64_t i = 0; i < 6; ++i)
    jobs.push_back({random_tokens(3, 100 + i), 2 + 2 * static_cast<std::int64_t>(i), i});
  QueryExchange exchange = Answerer::exchange(model.decoder, world_);
  for (const Rank who : {0, world_.size() - 1}) {
    for (const bool spread : {false, true}) {
      AnswerOptions options;
      options.spread_queries = spread;
      int n_steps = 0;
      std::size_t n_finished = 0;
      options.poll = [&] { ++n_steps; };
      options.finished = [&](std::size_t, const QueryResult&) { ++n_finished; };
      options.check = [&] {
        if (world_.rank() == who && n_steps >= 3) fail(Exit::io, "the weights have changed");
      };
      Answerer answerer(model.decoder, exchange, kv, options);
      try {
        answerer.answer(jobs);
        FAIL() << "answered";
      } catch (const AgreedError& error) {
        EXPECT_EQ(error.exit(), Exit::io);
        EXPECT_STREQ(error.what(), "the weights have changed");
      }
      EXPECT_EQ(n_finished, world_.is_root() ? 1U : 0U);  // the one of two tokens
    }
  }
}

}  // namespace
}  // namespace starattn
