// SPDX-License-Identifier: Apache-2.0
// Which rows a rank's queries bring to a step, in which order they begin, and when they end. No
// ranks, no network.
#include "star/step_batch.h"

#include <gtest/gtest.h>

#include <deque>

#include "backend/backend.h"
#include "base/error.h"

namespace starattn {
namespace {

constexpr std::int64_t kLayers = 2;
constexpr std::int64_t kWidth = 4;

class StepBatchTest : public ::testing::Test {
 protected:
  StepBatch batch(std::int64_t n_rows, std::int64_t most_tokens = INT64_MAX) {
    return {{n_rows, most_tokens}, [this](std::int64_t n_tokens) {
              if (n_tokens > n_tokens_free_) fail(Exit::unfit, "out of memory");
              return KvCache(*backend_, kLayers, n_tokens, KvLayout{Dtype::f32, 1, kWidth});
            }};
  }
  const QueryJob& job(std::vector<Token> tokens, std::int64_t max_new_tokens) {
    jobs_.push_back({std::move(tokens), max_new_tokens, 0});
    return jobs_.back();
  }
  static std::vector<std::vector<std::int64_t>> rows_of(const StepBatch& batch) {
    std::vector<std::vector<std::int64_t>> all;
    for (const StepBatch::QueryRows& rows : batch.rows())
      all.push_back({static_cast<std::int64_t>(rows.query), rows.first_row, rows.n_rows,
                     rows.is_last ? 1 : 0});
    return all;
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  std::int64_t n_tokens_free_ = INT64_MAX;
  std::deque<QueryJob> jobs_;
};

using Chosen = std::vector<std::vector<std::int64_t>>;  // query, first row, number, is last

TEST_F(StepBatchTest, ALongQueryTakesSeveralStepsBesideOthers) {
  StepBatch batch = this->batch(4);
  batch.add(7, job({1, 2, 3, 4, 5, 6}, 2));
  batch.add(9, job({11, 12}, 2));
  batch.choose_rows(true);
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 4, 0}}));
  EXPECT_EQ(batch.tokens(), (std::vector<Token>{1, 2, 3, 4}));
  EXPECT_TRUE(batch.runs().empty());  // nothing predicts yet
  batch.rows_are_done();

  batch.choose_rows(true);
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 2, 1}, {1, 2, 2, 1}}));
  EXPECT_EQ(batch.tokens(), (std::vector<Token>{5, 6, 11, 12}));
  EXPECT_EQ(batch.pass(nullptr).positions(100), (std::vector<std::int64_t>{104, 105, 100, 101}));
  const std::vector<OwnTokens> own = batch.pass(nullptr).own_tokens(1);
  ASSERT_EQ(own.size(), 4u);
  EXPECT_EQ(own[1].n_before, 5);
  EXPECT_EQ(own[1].n_beside, 1);
  EXPECT_EQ(own[2].n_beside, 0);
  EXPECT_NE(own[1].k, own[2].k);
  ASSERT_EQ(batch.runs().size(), 2u);  // their last rows do not lie side by side
  batch.rows_are_done();
  EXPECT_FALSE(batch.take(0, 21, false));
  EXPECT_FALSE(batch.take(1, 31, false));

  batch.choose_rows(true);
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 1, 1}, {1, 1, 1, 1}}));
  EXPECT_EQ(batch.tokens(), (std::vector<Token>{21, 31}));
  EXPECT_EQ(batch.pass(nullptr).positions(0), (std::vector<std::int64_t>{6, 2}));
  ASSERT_EQ(batch.runs().size(), 1u);
  EXPECT_EQ(batch.runs()[0].size(), 2u);
  batch.rows_are_done();
  EXPECT_TRUE(batch.take(0, 22, false));
  EXPECT_EQ(batch.result_of(0).reason, FinishReason::length);
  EXPECT_EQ(batch.result_of(0).tokens, (std::vector<Token>{21, 22}));
  EXPECT_TRUE(batch.take(1, 32, true));
  EXPECT_EQ(batch.result_of(1).reason, FinishReason::stop);
  EXPECT_EQ(batch.index_of(1), 9u);
  batch.choose_rows(true);
  EXPECT_EQ(batch.n_rows(), 0);
}

TEST_F(StepBatchTest, AStepThatGoesAheadHasARowForEachQueryThatGoesOn) {
  StepBatch batch = this->batch(4);
  batch.add(0, job({1, 2}, 3));
  batch.add(1, job({11}, 3));
  batch.add(2, job({21}, 2));
  EXPECT_FALSE(batch.choose_rows(true));
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 2, 1}, {1, 2, 1, 1}, {2, 3, 1, 1}}));
  ASSERT_TRUE(batch.can_go_ahead(true));
  const Token drawn[3] = {};
  const PassRows ahead = batch.go_ahead(drawn);
  EXPECT_EQ(ahead.positions(100), (std::vector<std::int64_t>{102, 101, 101}));
  EXPECT_EQ(ahead.tokens, drawn);
  EXPECT_EQ(ahead.own_tokens(0)[0].n_beside, 0);
  batch.rows_are_done();
  batch.take(0, 3, false);
  EXPECT_TRUE(batch.take(1, 13, /*is_stop=*/true));
  batch.take(2, 23, false);

  EXPECT_TRUE(batch.choose_rows(true));  // nothing is left to compute
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 1, 1}, {2, 2, 1, 1}}));
  EXPECT_EQ(batch.tokens(), (std::vector<Token>{3, 23}));
  EXPECT_EQ(batch.runs().size(), 2u);      // row 1 lies between them
  EXPECT_FALSE(batch.can_go_ahead(true));  // query 2 gets its last token
  batch.begin_again();
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 1, 1}, {2, 1, 1, 1}}));
  EXPECT_EQ(batch.pass(drawn).positions(100), (std::vector<std::int64_t>{102, 101}));
  batch.rows_are_done();
  batch.take(0, 4, false);
  EXPECT_TRUE(batch.take(2, 24, false));
  EXPECT_FALSE(batch.choose_rows(true));
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 1, 1}}));
}

TEST_F(StepBatchTest, NoStepGoesAheadThatAQueryMayJoin) {
  StepBatch batch = this->batch(2);
  batch.add(0, job({1, 2, 3}, 3));
  batch.add(1, job({11}, 3));
  batch.choose_rows(true);
  EXPECT_FALSE(batch.can_go_ahead(true));  // query 0 has another token to bring
  batch.rows_are_done();
  batch.choose_rows(true);
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 1, 1}, {1, 1, 1, 1}}));
  EXPECT_TRUE(batch.can_go_ahead(true));

  StepBatch wide = this->batch(3, /*most_tokens=*/6);
  wide.add(0, job({1}, 4));
  wide.add(1, job({11}, 4));  // does not fit beside it
  wide.choose_rows(true);
  EXPECT_EQ(rows_of(wide), (Chosen{{0, 0, 1, 1}}));
  EXPECT_TRUE(wide.can_go_ahead(true));

  StepBatch open = this->batch(3);
  open.add(0, job({1, 2, 3}, 4));
  open.add(1, job({11}, 4));
  open.choose_rows(true);
  EXPECT_FALSE(open.can_go_ahead(true));  // query 1 can begin
  EXPECT_TRUE(open.can_go_ahead(false));
}

TEST_F(StepBatchTest, WithoutNewTokensAQueryEndsWithItsOwn) {
  StepBatch batch = this->batch(4);
  batch.add(0, job({1, 2}, 0));
  batch.choose_rows(true);
  batch.rows_are_done();
  EXPECT_TRUE(batch.take(0, 5, true));
  EXPECT_TRUE(batch.result_of(0).tokens.empty());
  EXPECT_EQ(batch.result_of(0).reason, FinishReason::length);
}

TEST_F(StepBatchTest, AQueryWaitsForRoomAndOthersBehindItDoNotOvertake) {
  StepBatch batch = this->batch(8, /*most_tokens=*/8);
  batch.add(0, job({1, 2}, 3));     // 5 tokens
  batch.add(1, job({1, 2, 3}, 1));  // 4 do not fit beside them
  batch.add(2, job({1}, 1));        // 2 would
  batch.choose_rows(true);
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 2, 1}}));
  EXPECT_EQ(batch.n_not_begun(), 2);
  batch.rows_are_done();
  EXPECT_TRUE(batch.take(0, 5, true));
  batch.choose_rows(true);
  EXPECT_EQ(rows_of(batch), (Chosen{{1, 0, 3, 1}, {2, 3, 1, 1}}));
}

TEST_F(StepBatchTest, AQueryTooLargeForTheRoomIsLetInAlone) {
  StepBatch batch = this->batch(8, /*most_tokens=*/3);
  batch.add(0, job({1, 2}, 3));
  batch.add(1, job({1}, 1));
  batch.choose_rows(true);
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 2, 1}}));
  EXPECT_TRUE(batch.no_memory().empty());
}

TEST_F(StepBatchTest, WhereMemoryEndsQueriesWaitAndOneAloneSaysSo) {
  n_tokens_free_ = 5;
  StepBatch batch = this->batch(8);
  batch.add(0, job({1, 2}, 3));
  batch.add(1, job({1, 2, 3}, 5));
  batch.choose_rows(true);
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 2, 1}}));
  EXPECT_TRUE(batch.no_memory().empty());
  batch.rows_are_done();
  EXPECT_TRUE(batch.take(0, 5, true));
  batch.choose_rows(true);
  EXPECT_EQ(batch.n_rows(), 0);
  EXPECT_NE(batch.no_memory().find("query 1 of 3 tokens"), std::string::npos);
}

TEST_F(StepBatchTest, OnceStoppedNoFurtherQueryBegins) {
  StepBatch batch = this->batch(2);
  batch.add(0, job({1, 2}, 3));
  batch.add(1, job({1}, 1));
  batch.choose_rows(true);
  batch.rows_are_done();
  EXPECT_FALSE(batch.take(0, 5, false));
  batch.choose_rows(false);
  EXPECT_EQ(rows_of(batch), (Chosen{{0, 0, 1, 1}}));
  EXPECT_EQ(batch.n_not_begun(), 1);
}

TEST(Agree, WhatOneRankSaysIsTrueForAll) {
  const StepShare shares[] = {{3, 0, 0, 0}, {0, 1, 0, 0}, {2, 0, 1, 0}};
  const Step step = agree(shares);
  EXPECT_EQ(step.n_rows, (std::vector<std::int64_t>{3, 0, 2}));
  EXPECT_TRUE(step.has_rows());
  EXPECT_TRUE(step.is_asked_to_stop);
  EXPECT_TRUE(step.has_answers);
  EXPECT_FALSE(step.has_failed);
  EXPECT_FALSE(agree(std::vector<StepShare>(2)).has_rows());
}

}  // namespace
}  // namespace starattn
