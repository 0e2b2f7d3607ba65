// SPDX-License-Identifier: Apache-2.0
#include "base/next_token.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "base/error.h"

namespace starattn {
namespace {

// How often each token comes up over evenly spaced random numbers.
std::map<std::int32_t, double> shares(const std::vector<float>& logits, double temperature,
                                      double top_p) {
  constexpr int kDraws = 20000;
  std::map<std::int32_t, double> found;
  for (int i = 0; i < kDraws; ++i)
    found[next_token(logits, {temperature, top_p, (i + 0.5) / kDraws})] += 1.0 / kDraws;
  return found;
}

const std::vector<float> kLogits{1.5F, -2, 3, 0.25F, 3, -30};

TEST(NextToken, IsTheFirstHighestWhereNothingIsDrawn) {
  EXPECT_EQ(next_token(kLogits, {}), 2);
  EXPECT_EQ(next_token(kLogits, {0, 0.5, 0.99}), 2);
  EXPECT_EQ(next_token(std::vector<float>{-1}, {1, 1, 0.5}), 0);
}

// However the tokens are shared out, and whatever their logits are.
TEST(NextToken, IsTheHighestOfTheHighestOfItsParts) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const std::vector<std::uint32_t> even{0x55555555}, none{0}, second_half{0xfffffff8};
  const std::vector<std::vector<float>> rows{kLogits,
                                             {1, 1, 1, 1, 1, 1},
                                             {1, 2, nan, 3, 4, 5},
                                             {-inf, 1, 1, 1, 1, 2},
                                             {inf, 1, 1, 1, 1, 1},
                                             {-5, -4, -3, -4, -3, -5},
                                             {0, 0, 0, 0, 0, 1}};
  for (const std::vector<float>& logits : rows) {
    for (const auto& allowed : {std::span<const std::uint32_t>(), std::span(even), std::span(none),
                                std::span(second_half)}) {
      const Draw draw{.allowed = allowed};
      for (std::size_t cut = 0; cut <= logits.size(); ++cut) {
        const auto all = std::span(logits);
        const std::vector<Highest> parts{
            highest_of(all.first(cut), 0, allowed),
            highest_of(all.subspan(cut), static_cast<Token>(cut), allowed)};
        EXPECT_EQ(best_of(parts), next_token(logits, draw)) << cut;
        EXPECT_EQ(best_of(std::vector<Highest>{parts[1], parts[0]}), next_token(logits, draw));
      }
    }
  }
  EXPECT_EQ(best_of({}), kNoToken);
}

TEST(NextToken, ComesUpAsOftenAsItWeighs) {
  for (const double temperature : {0.5, 1.0, 3.0}) {
    double total = 0;
    for (const float logit : kLogits) total += std::exp(logit / temperature);
    const auto found = shares(kLogits, temperature, 1);
    for (std::size_t i = 0; i < kLogits.size(); ++i) {
      const auto at = found.find(static_cast<std::int32_t>(i));
      EXPECT_NEAR(at == found.end() ? 0 : at->second, std::exp(kLogits[i] / temperature) / total,
                  1e-4)
          << i << " at " << temperature;
    }
  }
}

TEST(NextToken, IsOneThatMayCome) {
  const std::vector<std::uint32_t> allowed{0b101011};  // neither of the threes
  EXPECT_EQ(next_token(kLogits, {.allowed = allowed}), 0);
  for (const double top_p : {0.0, 0.5, 0.999, 1.0}) {
    for (int i = 0; i < 1000; ++i) {
      const Token token = next_token(kLogits, {2, top_p, i / 1000.0, allowed});
      ASSERT_TRUE(token == 0 || (top_p > 0 && (token == 1 || token == 3 || token == 5))) << token;
    }
  }
  const std::vector<std::uint32_t> none{0};
  EXPECT_EQ(next_token(kLogits, {1, 1, 0.5, none}), kNoToken);
  std::vector<float> wrong = kLogits;
  wrong[2] = NAN;  // though it may not come
  EXPECT_EQ(next_token(wrong, {1, 1, 0.5, allowed}), kNoToken);
}

TEST(NextToken, ComesFromTheSmallestNucleus) {
  // At temperature 1 the two threes weigh 0.436 each, 1.5 weighs 0.097, 0.25 weighs 0.028.
  const auto keys = [](const std::map<std::int32_t, double>& found) {
    std::vector<std::int32_t> tokens;
    for (const auto& entry : found) tokens.push_back(entry.first);
    return tokens;
  };
  using Tokens = std::vector<std::int32_t>;
  EXPECT_EQ(keys(shares(kLogits, 1, 0)), Tokens{2});
  EXPECT_EQ(keys(shares(kLogits, 1, 0.42)), Tokens{2});  // the first of two that are equal
  EXPECT_EQ(keys(shares(kLogits, 1, 0.44)), (Tokens{2, 4}));
  EXPECT_EQ(keys(shares(kLogits, 1, 0.9)), (Tokens{0, 2, 4}));
  EXPECT_EQ(keys(shares(kLogits, 1, 0.98)), (Tokens{0, 2, 3, 4}));
  const auto found = shares(kLogits, 1, 0.9);
  EXPECT_NEAR(found.at(0), std::exp(1.5) / (std::exp(1.5) + 2 * std::exp(3.0)), 1e-4);
  EXPECT_NEAR(found.at(2), found.at(4), 1e-4);
}

TEST(NextToken, SurvivesTheEndOfTheRange) {
  const double last = std::nextafter(1.0, 0.0);
  EXPECT_EQ(next_token(std::vector<float>(1000, -7), {1, 1, last}), 999);
  EXPECT_EQ(next_token(std::vector<float>(1000, -7), {1, 0.5, last}), 499);
  EXPECT_EQ(next_token(std::vector<float>(1000, -7), {1, 0.5, 0}), 0);
}

TEST(NextToken, IsNoneWhereALogitIsNotFinite) {
  for (const float value : {std::nanf(""), INFINITY, -INFINITY}) {
    for (const std::size_t n : {1, 3, 8, 21}) {
      for (std::size_t bad = 0; bad < n; ++bad) {
        std::vector<float> logits(n, 1);
        logits[bad] = value;
        EXPECT_EQ(next_token(logits, {}), kNoToken) << value << " at " << bad << " of " << n;
        EXPECT_EQ(next_token(logits, {1, 0.5, 0.5}), kNoToken) << bad << " of " << n;
      }
    }
  }
  EXPECT_EQ(next_token(std::vector<float>(21, std::numeric_limits<float>::max()), {}), 0);
}

}  // namespace
}  // namespace starattn
