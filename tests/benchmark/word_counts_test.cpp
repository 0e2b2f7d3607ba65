// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "benchmark/sample.h"

namespace starattn {
namespace {

std::map<std::string, int> counts(const std::string& text) {
  std::map<std::string, int> all;
  std::istringstream words(text);
  for (std::string word; words >> word;) ++all[word];
  return all;
}

// The last paragraph that a prompt's words open.
std::string after_last(const std::string& text, const std::string& opening) {
  return text.substr(text.rfind(opening) + opening.size());
}

TEST(CommonWords, TenWordsAppearMoreOften) {
  for (const bool is_short : {true, false}) {
    const SampleMaker maker = common_words_maker(is_short);
    const Sample sample = maker.make(Random(3), 0, 25);
    const std::string list = after_last(sample.context, "appear most often.\n");
    std::map<int, std::set<std::string>> by_count;
    int n_numbers = 0;
    for (const auto& [word, n] : counts(list)) {
      if (word.back() == '.') {
        ++n_numbers;
        EXPECT_EQ(n, 1) << word;
      } else {
        by_count[n].insert(word);
      }
    }
    const int common = is_short ? 6 : 30;
    const int others = is_short ? 1 : 3;
    EXPECT_EQ(by_count.size(), 2U);
    EXPECT_EQ(by_count[common],
              std::set<std::string>(sample.answers.begin(), sample.answers.end()));
    EXPECT_EQ(by_count[common].size(), 10U);
    EXPECT_EQ(by_count[others].size(), 15U);
    EXPECT_EQ(n_numbers, 10 * common + 15 * others);
  }
}

TEST(CommonWords, BeginWithASolvedExample) {
  const Sample sample = common_words_maker(true).make(Random(3), 0, 25);
  const std::string prefix = "words that appear most often in the list are: 1. ";
  const std::size_t solved = sample.context.find(prefix);
  ASSERT_NE(solved, std::string::npos);
  const std::string list = sample.context.substr(0, solved);
  std::istringstream answers(sample.context.substr(solved + prefix.size()));
  std::string word, number;
  for (int i = 0; i < 10; ++i, answers >> number) {
    answers >> word;
    EXPECT_EQ(counts(list)[word], 3) << word;
  }
}

TEST(FrequentWords, FollowTheZetaDistribution) {
  const std::int64_t n = 3000;
  const Sample sample = frequent_words_maker(10000).make(Random(5), 0, n);
  const auto words = counts(after_last(sample.context, "coded words. "));
  std::vector<std::pair<int, std::string>> ranked;
  for (const auto& [word, count] : words) ranked.emplace_back(count, word);
  std::sort(ranked.rbegin(), ranked.rend());
  // n k^-2 / zeta(2) with zeta(2) = 1.644934: 1823.8, 455.9, 202.6, 113.98, 72.95
  const int expected[] = {1823, 455, 202, 113, 72};
  for (int k = 0; k < 5; ++k) EXPECT_EQ(ranked[k].first, expected[k]) << k;
  EXPECT_EQ(ranked[0].second, "...");
  EXPECT_EQ(sample.answers,
            (std::vector<std::string>{ranked[1].second, ranked[2].second, ranked[3].second}));
  EXPECT_EQ(ranked[1].second.size(), 6U);
  EXPECT_EQ(words.size(), 42U);  // ranks that appear at least once: k^2 <= n / zeta(2)
}

TEST(FrequentWords, RanksDifferAtTheLeastSize) {
  const SampleMaker maker = frequent_words_maker(512);
  for (std::int64_t n = maker.min_units; n < maker.min_units + 200; ++n) {
    const Sample sample = maker.make(Random(5), 0, n);
    auto words = counts(after_last(sample.context, "coded words. "));
    int fewest = 1 << 20;
    for (const std::string& answer : sample.answers) {
      EXPECT_LT(words[answer], fewest);
      fewest = words[answer];
      words.erase(answer);
    }
    words.erase("...");
    for (const auto& [word, count] : words) EXPECT_LT(count, fewest) << word;
  }
}

}  // namespace
}  // namespace starattn
