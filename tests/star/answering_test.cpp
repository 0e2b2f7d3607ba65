// SPDX-License-Identifier: Apache-2.0
// Queries in work on however many ranks mpirun started: which begin and which wait, who is told of
// an answer and when, and what ends all of them.
#include <map>

#include "equalities.h"

namespace starattn::testing {
namespace {

class Answering : public Equalities {};

// A document of 400 tokens that all ranks have encoded, and what answers queries over it.
struct EncodedDocument {
  explicit EncodedDocument(const Communicator& world)
      : exchange(Answerer::exchange(model.decoder, world)) {
    PlanRequest request;
    request.block_size = 90;
    const BlockPlan plan = BlockPlan::make(request, 400, world.size());
    Encoder encoder(model.decoder, world);
    kv = encoder.encode(plan, random_tokens(400, 1));
  }
  Answerer answerer(const AnswerOptions& options) { return {model.decoder, exchange, kv, options}; }

  TinyModel model;
  QueryExchange exchange;
  DocumentKv kv;
};

// 300 queries of 3 tokens, 128 rows a step: the first 42 begin, with two tokens of the 43rd.
TEST_F(Answering, AStopOnAnyRankLeavesTheQueriesThatHaveNotBegun) {
  EncodedDocument document(world_);
  std::vector<QueryJob> all;
  for (std::uint64_t i = 0; i < 300; ++i) all.push_back({random_tokens(3, 100 + i), 4, i});

  for (const bool spread : {false, true}) {
    AnswerOptions options;
    options.spread_queries = spread;
    Answerer answerer = document.answerer(options);
    const std::vector<QueryResult> whole = answerer.answer(all);
    EXPECT_EQ(answerer.n_left(), 0);
    int n_asked = 0;
    options.stop = [&] { return world_.rank() == world_.size() - 1 && ++n_asked == 2; };
    Answerer stopped = document.answerer(options);
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

TEST_F(Answering, SpreadAnswersReachTheFirstRankAsTheyFinish) {
  EncodedDocument document(world_);
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
  Answerer answerer = document.answerer(options);
  const std::vector<QueryResult> results = answerer.answer(all);
  EXPECT_EQ(handed_out.size(), world_.is_root() ? all.size() : 0);
  for (const auto& [i, result] : handed_out) {
    EXPECT_EQ(std::ssize(result.tokens), all[i].max_new_tokens);
    EXPECT_EQ(results[i].tokens, result.tokens);
    EXPECT_LE(step_of[i], all[i].max_new_tokens);  // not when the document ends: 13
  }
}

TEST_F(Answering, QueriesWithoutRoomForTheirKvWaitForTheirTurn) {
  EncodedDocument document(world_);
  std::vector<QueryJob> all;
  for (std::uint64_t i = 0; i < 12; ++i) all.push_back({random_tokens(3, 100 + i), 5, i});
  const std::uint64_t one =
      (3 + 5) * document.model.config.kv_bytes_per_token(document.model.backend->kv_dtype());

  for (const bool spread : {false, true}) {
    AnswerOptions options;
    options.spread_queries = spread;
    const std::vector<QueryResult> whole = document.answerer(options).answer(all);
    for (const std::uint64_t room : {std::uint64_t{0}, one, 3 * one + 1}) {
      options.query_kv_bytes = room;
      std::vector<std::size_t> order;
      options.finished = [&](std::size_t i, const QueryResult&) { order.push_back(i); };
      int n_steps = 0;
      options.poll = [&] { ++n_steps; };
      Answerer answerer = document.answerer(options);
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

// On a device that works behind the host a step begins before the tokens it goes on with are known.
// A query that may be given a draft waits for them instead, and no draft changes an answer.
TEST_F(Answering, StepsThatGoAheadChangeNoAnswer) {
  EncodedDocument document(world_);
  const std::vector<Token> context = random_tokens(400, 1);
  std::vector<QueryJob> all;
  for (std::uint64_t i = 0; i < 14; ++i) {
    QueryJob job{random_tokens(1 + static_cast<std::int64_t>(i % 3), 100 + i), 9, i};
    if (i % 2 == 1) job.sampling = {3, 0.9};
    all.push_back(job);
  }
  const std::uint64_t one =
      (3 + 9) * document.model.config.kv_bytes_per_token(document.model.backend->kv_dtype());
  auto* late = dynamic_cast<LateBackend*>(document.model.backend.get());
  std::int64_t n_ended_early = 0;
  for (const std::uint64_t room : {4 * one, UINT64_MAX}) {
    AnswerOptions options;
    for (Token token = 0; token < 96; token += 6) options.eos_tokens.push_back(token);
    options.n_logprobs = 2;
    options.query_kv_bytes = room;
    AnswerOptions waits = options;
    waits.n_lookup = 1;
    waits.context = context;
    AnswerOptions adapts = waits;  // goes ahead while drafts pause
    adapts.n_lookup = 3;
    adapts.adapts_lookup = true;
    const std::vector<QueryResult> expected = document.answerer(waits).answer(all);
    const std::vector<QueryResult> adapted = document.answerer(adapts).answer(all);
    const std::int64_t n_before = late ? late->n_embedded() : 0;
    const std::int64_t n_repeated_before = late ? late->n_repeated() : 0;
    const std::vector<QueryResult> results = document.answerer(options).answer(all);
    if (!world_.is_root()) continue;
    std::int64_t n_needed = 0;  // rows
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(results[i].tokens, expected[i].tokens) << i;
      EXPECT_EQ(results[i].reason, expected[i].reason) << i;
      EXPECT_EQ(results[i].logprobs, expected[i].logprobs) << i;
      EXPECT_EQ(adapted[i].tokens, expected[i].tokens) << i;
      EXPECT_EQ(adapted[i].reason, expected[i].reason) << i;
      n_ended_early += results[i].reason == FinishReason::stop;
      n_needed += std::ssize(all[i].tokens) + std::ssize(results[i].tokens) - 1;
    }
    // Rows of queries that turned out to have ended were computed for nobody.
    if (late && world_.size() == 1) {
      EXPECT_GT(late->n_embedded() - n_before, n_needed);
      EXPECT_GT(late->n_repeated(), n_repeated_before) << "steps that go ahead are";
    }
  }
  if (world_.is_root()) {
    EXPECT_GT(n_ended_early, 0);
  }
}

TEST_F(Answering, AQueryThatNoMemoryHoldsIsAnErrorOnAllRanks) {
  EncodedDocument document(world_);
  std::vector<QueryJob> all(2, {random_tokens(3, 100), 4, 0});
  all.push_back({random_tokens(3, 102), std::int64_t{1} << 44, 0});
  AnswerOptions options;
  int n_finished = 0;
  options.finished = [&](std::size_t, const QueryResult&) { ++n_finished; };
  Answerer answerer = document.answerer(options);
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

}  // namespace
}  // namespace starattn::testing
