// SPDX-License-Identifier: Apache-2.0
#include "base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace starattn {
namespace {

// SplitMix64 from seed 1234567: the sequence that its published test program prints.
TEST(Random, MixIsSplitMix64) {
  constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15ULL;
  EXPECT_EQ(mix(1234567), 6457827717110365317ULL);
  EXPECT_EQ(mix(1234567 + kStep), 3203168211198807973ULL);
  EXPECT_EQ(mix(1234567 + 2 * kStep), 9817491932198370423ULL);
}

TEST(Random, KeysDependOnWhereTextsEnd) {
  EXPECT_NE(absorb(absorb(1, "a"), "bc"), absorb(absorb(1, "ab"), "c"));
  EXPECT_NE(absorb(1, std::uint64_t{0}), absorb(1, std::uint64_t{1}));
  EXPECT_NE(absorb(1, ""), std::uint64_t{1});
}

TEST(Random, StreamsDoNotDependOnWhatWasDrawn) {
  Random a(7);
  const Random b(7);
  a.bits();
  EXPECT_EQ(a.stream("x").bits(), b.stream("x").bits());
  EXPECT_NE(a.stream("x").bits(), b.stream("y").bits());
  EXPECT_NE(a.stream(1).bits(), b.stream(2).bits());
}

TEST(Random, BelowIsEvenAndInRange) {
  Random random(3);
  std::vector<int> counts(10);
  for (int i = 0; i < 100000; ++i) ++counts.at(random.below(10));
  for (const int n : counts) EXPECT_NEAR(n, 10000, 400);  // four standard deviations
  for (int i = 0; i < 100; ++i) EXPECT_EQ(random.below(1), 0U);
  std::set<std::int64_t> seen;
  for (int i = 0; i < 200; ++i) seen.insert(random.between(-1, 1));
  EXPECT_EQ(seen, (std::set<std::int64_t>{-1, 0, 1}));
}

TEST(Random, ShuffleKeepsItemsAndSampleTakesEachOnce) {
  Random random(5);
  std::vector<int> items(50);
  std::iota(items.begin(), items.end(), 0);
  std::vector<int> shuffled = items;
  random.shuffle(shuffled);
  EXPECT_NE(shuffled, items);
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(shuffled, items);
  for (const std::int64_t k : {0, 1, 7, 20}) {
    const auto sample = random.sample(20, k);
    const std::set<std::int64_t> distinct(sample.begin(), sample.end());
    EXPECT_EQ(static_cast<std::int64_t>(sample.size()), k);
    EXPECT_EQ(distinct.size(), sample.size());
    for (const std::int64_t number : sample) EXPECT_TRUE(0 <= number && number < 20);
  }
}

TEST(Random, SampleReachesEveryNumberEquallyOften) {
  Random random(9);
  std::vector<int> counts(6);
  for (int i = 0; i < 30000; ++i)
    for (const std::int64_t number : random.sample(6, 2)) ++counts.at(number);
  for (const int n : counts) EXPECT_NEAR(n, 10000, 330);
}

}  // namespace
}  // namespace starattn
