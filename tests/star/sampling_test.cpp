// SPDX-License-Identifier: Apache-2.0
#include "star/sampling.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace starattn {
namespace {

TEST(TopLogits, AreDescendingAndTiesGoToTheLowerId) {
  const std::vector<float> logits{1, 5, 3, 5, -2};
  const std::vector<std::pair<Token, float>> top = top_logits(logits, 4);
  const std::vector<std::pair<Token, float>> wanted{{1, 5}, {3, 5}, {2, 3}, {0, 1}};
  EXPECT_EQ(top, wanted);
}

TEST(TopLogits, AreNoMoreThanThereAreAndNoFewerThanNone) {
  const std::vector<float> logits{1, 2};
  EXPECT_EQ(top_logits(logits, 10).size(), 2u);
  EXPECT_TRUE(top_logits(logits, 0).empty());
  EXPECT_TRUE(top_logits(logits, -3).empty());
  EXPECT_TRUE(top_logits({}, 3).empty());
}

TEST(SamplingKey, DependsOnAllThreeAndOnNothingElse) {
  std::set<std::uint64_t> keys;
  for (const std::uint64_t seed : {0, 1})
    for (const char* document : {"", "a", "ab"})
      for (const char* query : {"", "b", "0"}) keys.insert(sampling_key(seed, document, query));
  EXPECT_EQ(keys.size(), 18u) << "'a' + 'b' is not 'ab' + ''";
  EXPECT_EQ(sampling_key(3, "doc", "query"), sampling_key(3, "doc", "query"));
}

TEST(DrawOf, ChangesWithTheStepAndCarriesTheSetting) {
  const Sampling sampling{0.7, 0.9};
  const Draw first = draw_of(sampling, 5, 0);
  EXPECT_EQ(first.temperature, 0.7);
  EXPECT_EQ(first.top_p, 0.9);
  EXPECT_EQ(first.unit, draw_of(sampling, 5, 0).unit);
  EXPECT_NE(first.unit, draw_of(sampling, 5, 1).unit);
  EXPECT_NE(first.unit, draw_of(sampling, 6, 0).unit);
}

// The numbers behind the draws are spread evenly: each tenth gets a tenth of 10,000 (five sigma:
// 150).
TEST(DrawOf, IsUniform) {
  int counts[10] = {};
  for (std::uint64_t step = 0; step < 10'000; ++step) {
    const double unit = draw_of({1, 1}, sampling_key(42, "a", "0"), step).unit;
    ASSERT_GE(unit, 0.0);
    ASSERT_LT(unit, 1.0);
    ++counts[static_cast<int>(unit * 10)];
  }
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);
}

// With a temperature the tokens come as often as their softmax says; beyond top_p never.
TEST(DrawOf, TokensComeAsOftenAsTheirProbability) {
  const std::vector<float> logits{0.0F, 1.0986123F, 0.0F, -40.0F};
  int all[4] = {};
  int top[4] = {};
  for (std::uint64_t step = 0; step < 10'000; ++step) {
    ++all[next_token(logits, draw_of({1, 1}, 7, step))];
    ++top[next_token(logits, draw_of({1, 0.5}, 7, step))];
  }
  EXPECT_NEAR(all[0], 2000, 200);
  EXPECT_NEAR(all[1], 6000, 245);
  EXPECT_NEAR(all[2], 2000, 200);
  EXPECT_EQ(all[3], 0);
  EXPECT_EQ(top[1], 10'000);
}

}  // namespace
}  // namespace starattn
