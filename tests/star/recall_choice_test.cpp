// SPDX-License-Identifier: Apache-2.0
#include "star/recall_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

namespace starattn {
namespace {

BlockPlan plan_of(std::int64_t n, std::int64_t block, std::int64_t anchor, std::int64_t recall,
                  int n_ranks) {
  PlanRequest request;
  request.block_size = block;
  request.anchor_size = TokenShare{anchor};
  request.recall = TokenShare{recall};
  return BlockPlan::make(request, n, n_ranks);
}

TEST(RecallChoice, ARankHoldsWhatLiesBehindTheAnchorAndBeforeTheBlock) {
  const BlockPlan plan = plan_of(100, 10, 13 - 3, 5, 2);  // the anchor is all of block 0
  EXPECT_TRUE(parts_held(plan, 0, 1).empty());            // nothing lies between
  const std::vector<RecallablePart> even = parts_held(plan, 0, 5);
  ASSERT_EQ(even.size(), 2U);  // blocks 2 and 4
  EXPECT_EQ(even[0].block, 2);
  EXPECT_EQ(even[1].block, 4);
  EXPECT_EQ(n_tokens(parts_held(plan, 1, 5)), 20);  // blocks 1 and 3

  const BlockPlan small = plan_of(95, 10, 3, 5, 2);
  const std::vector<RecallablePart> first = parts_held(small, 0, 1);
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first[0].first_blk, 3);
  EXPECT_EQ(first[0].n_tokens, 7);
}

// However the tokens are spread over ranks, the same are chosen, and arrive in document order.
TEST(RecallChoice, IsTheSameOnAnyRanks) {
  std::mt19937 random(7);
  std::vector<float> scores(80);                                         // of tokens 5 to 84
  for (float& score : scores) score = static_cast<float>(random() % 9);  // many are equal
  scores[3] = std::numeric_limits<float>::quiet_NaN();
  constexpr std::int64_t kRecall = 17;
  std::vector<std::int64_t> expected(80);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<std::int64_t>(i);
  std::ranges::stable_sort(expected, [&](std::int64_t a, std::int64_t b) {
    const auto value = [&](std::int64_t i) {
      const float score = scores[static_cast<std::size_t>(i)];
      return score != score ? -1.0F : score;
    };
    return value(a) > value(b);
  });
  expected.resize(kRecall);
  std::ranges::sort(expected);

  for (const int n_ranks : {1, 2, 3, 7}) {
    const BlockPlan plan = plan_of(100, 17, 5, kRecall, n_ranks);
    const BlockId asking = 5;  // its first token is 85
    std::vector<std::vector<std::int32_t>> numbers;
    std::vector<std::vector<float>> theirs;
    std::vector<std::vector<RecallablePart>> parts;
    std::vector<std::vector<std::int64_t>> tokens;  // of each rank's numbers, from 0 on
    for (Rank rank = 0; rank < n_ranks; ++rank) {
      parts.push_back(parts_held(plan, rank, asking));
      tokens.emplace_back();
      numbers.emplace_back();
      theirs.emplace_back();
      for (const RecallablePart& part : parts.back()) {
        for (std::int64_t i = 0; i < part.n_tokens; ++i) {
          const std::int64_t token = plan.block(part.block).first_doc + part.first_blk + i - 5;
          numbers.back().push_back(static_cast<std::int32_t>(tokens.back().size()));
          tokens.back().push_back(token);
          theirs.back().push_back(scores[static_cast<std::size_t>(token)]);
        }
      }
    }
    std::vector<Candidates> ranks;
    for (std::size_t r = 0; r < parts.size(); ++r)
      ranks.push_back({parts[r], numbers[r], theirs[r]});
    const Choice choice = choose_among(plan, ranks, kRecall);
    std::vector<std::int64_t> arrived;
    for (std::size_t r = 0; r < parts.size(); ++r)
      for (const std::int32_t number : choice.wanted[r])
        arrived.push_back(tokens[r][static_cast<std::size_t>(number)]);
    std::vector<std::int64_t> in_order;
    for (const std::int32_t place : choice.order)
      in_order.push_back(arrived[static_cast<std::size_t>(place)]);
    EXPECT_EQ(in_order, expected) << n_ranks;
  }
}

}  // namespace
}  // namespace starattn
