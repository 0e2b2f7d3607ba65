// SPDX-License-Identifier: Apache-2.0
#include "eval/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace starattn {
namespace {

TEST(Divergence, IsThatOfDistributionsWorkedByHand) {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = 1/2 log 2 + 0 - 1/4 log 2.
  const std::vector<float> p = {std::log(2.0F), 0, 0};
  const std::vector<float> q = {0, 0, std::log(2.0F)};
  const Divergence one = divergence(p, q);
  EXPECT_NEAR(one.kl, 0.25 * std::log(2.0), 1e-7);
  EXPECT_FALSE(one.same_top);
  // Not the same the other way round in general: p = (8/10, 1/10, 1/10), q uniform.
  const std::vector<float> sharp = {std::log(8.0F), 0, 0};
  const std::vector<float> flat = {5, 5, 5};
  EXPECT_NEAR(divergence(sharp, flat).kl, std::log(3.0) + 0.8 * std::log(0.8) + 0.2 * std::log(0.1),
              1e-6);
  EXPECT_NEAR(divergence(flat, sharp).kl, -std::log(3.0) - (std::log(0.8) + 2 * std::log(0.1)) / 3,
              1e-6);
  EXPECT_TRUE(divergence(sharp, flat).same_top);  // of equals the lowest id
}

TEST(Divergence, AConstantDoesNotMatterNorDoSizes) {
  const std::vector<float> p = {1, 2, 3};
  const std::vector<float> q = {1001, 1002, 1003};
  EXPECT_NEAR(divergence(p, q).kl, 0, 1e-12);
  const std::vector<float> far = {10000, -10000, 0};
  EXPECT_NEAR(divergence(far, far).kl, 0, 0);
  EXPECT_NEAR(divergence(far, {std::vector<float>{-10000, 10000, 0}}).kl, 20000, 1e-6);
}

TEST(Divergence, RefusesWhatIsNotANumber) {
  const std::vector<float> good = {1, 2, 3};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    const std::vector<float> other = {1, bad, 3};
    EXPECT_THROW(divergence(good, other), Error);
    EXPECT_THROW(divergence(other, good), Error);
    try {
      compare_logits(std::vector<float>{1, 2, 3, 1, 2, 3}, std::vector<float>{1, 2, 3, 1, bad, 3},
                     3);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("answer token 1: other logit of token 1"),
                std::string::npos)
          << error.what();
    }
  }
}

TEST(Divergence, AnAnswersPositionsAreAddedUp) {
  const std::vector<float> p = {std::log(2.0F), 0, 0, 1, 2, 3};
  const std::vector<float> q = {0, 0, std::log(2.0F), 1, 2, 3};
  const AnswerDivergence all = compare_logits(p, q, 3);
  EXPECT_NEAR(all.sum(), 0.25 * std::log(2.0), 1e-7);
  EXPECT_NEAR(all.max(), 0.25 * std::log(2.0), 1e-7);
  EXPECT_EQ(all.n_same_top, 1);
  EXPECT_EQ(compare_logits({}, {}, 3).max(), 0);
}

}  // namespace
}  // namespace starattn
