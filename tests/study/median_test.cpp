// SPDX-License-Identifier: Apache-2.0
#include "study/median.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

std::vector<double> up_to(int n) {
  std::vector<double> values;
  for (int i = n; i > 0; --i) values.push_back(i);  // not in order
  return values;
}

TEST(Median, IsTheMiddleOrTheMeanOfTwo) {
  EXPECT_EQ(median_of({7}).value, 7);
  EXPECT_EQ(median_of({3, 1, 2}).value, 2);
  EXPECT_EQ(median_of({4, 1, 3, 2}).value, 2.5);
}

// Conover, Practical Nonparametric Statistics, table A3 (binomial, p = 1/2): the order statistics
// whose interval has 95 % at least.
TEST(Median, HasTheIntervalOfTheBinomialDistribution) {
  for (const auto& [n, k] :
       {std::pair{6, 1}, {8, 1}, {9, 2}, {11, 2}, {12, 3}, {20, 6}, {100, 40}}) {
    const Median median = median_of(up_to(n));
    ASSERT_TRUE(median.interval) << n;
    EXPECT_EQ(median.interval->first, k) << n;
    EXPECT_EQ(median.interval->second, n - k + 1) << n;
  }
}

TEST(Median, HasNoneOfFewerThanSix) {
  for (int n = 1; n < 6; ++n) EXPECT_FALSE(median_of(up_to(n)).interval) << n;
}

}  // namespace
}  // namespace starattn
