// SPDX-License-Identifier: Apache-2.0
#include "benchmark/words.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "benchmark/story.h"

namespace starattn {
namespace {

TEST(Words, AreDifferentPlainAndNoLabels) {
  std::set<std::string_view> seen;
  for (const auto list : {adjectives(), nouns(), verbs()}) {
    EXPECT_GE(list.size(), 70U);
    for (const std::string_view word : list) {
      EXPECT_TRUE(seen.insert(word).second) << word << " is there twice";
      EXPECT_EQ(word.find_first_not_of("abcdefghijklmnopqrstuvwxyz"), std::string_view::npos);
    }
  }
  for (const char* task : {"qa1", "qa5"})
    for (const std::string_view label : story_labels(task)) EXPECT_FALSE(seen.contains(label));
}

TEST(Words, AsManyDifferentOnesAsAreWanted) {
  for (const std::int64_t n : {1, 100, 1000, 60000}) {
    const auto words = different_words(Random(1), n);
    EXPECT_EQ(static_cast<std::int64_t>(words.size()), n);
    EXPECT_EQ(std::set<std::string>(words.begin(), words.end()).size(), words.size());
  }
  EXPECT_EQ(different_words(Random(1), 9), different_words(Random(1), 9));
  EXPECT_NE(different_words(Random(1), 9), different_words(Random(2), 9));
  EXPECT_THROW(different_words(Random(1), std::int64_t{1} << 30), Error);
}

}  // namespace
}  // namespace starattn
