// SPDX-License-Identifier: Apache-2.0
#include "benchmark/haystack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>

#include "base/error.h"
#include "benchmark/hidden_lines.h"

namespace starattn {
namespace {

using Lines = std::vector<std::string>;

TEST(Haystack, SplitsSentences) {
  EXPECT_EQ(split_sentences("One. Two 2.5 here!\nIs it?  Yes\nno\n\nTitle\n\nEnd"),
            (Lines{"One.", "Two 2.5 here!", "Is it?", "Yes no", "Title", "End"}));
  EXPECT_EQ(split_sentences(" \n "), Lines{});
}

TEST(Haystack, GrowsAtItsEnd) {
  const Haystack haystack;
  const Lines few = haystack.sentences(Random(4), 50);
  const Lines many = haystack.sentences(Random(4), 300);
  EXPECT_EQ(few, Lines(many.begin(), many.begin() + 50));
  EXPECT_GT(std::set<std::string>(many.begin(), many.end()).size(), 295U);
  for (const std::string& sentence : many) {
    EXPECT_EQ(split_sentences(sentence), Lines{sentence});
    EXPECT_EQ(sentence.find('%'), std::string::npos);
    EXPECT_TRUE(std::isupper(static_cast<unsigned char>(sentence[0])));
  }
}

TEST(Haystack, ReadsAFileAndBeginsAgain) {
  const std::string path = testing::TempDir() + "starattn_haystack.txt";
  std::ofstream(path) << "A one. B two. C three.";
  const Haystack haystack = Haystack::read(path);
  const Lines lines = haystack.sentences(Random(1), 7);
  for (std::size_t i = 0; i + 3 < lines.size(); ++i) EXPECT_EQ(lines[i], lines[i + 3]);
  EXPECT_EQ(std::set<std::string>(lines.begin(), lines.end()).size(), 3U);
  EXPECT_EQ(haystack.description(), "sentences of starattn_haystack.txt");
  for (const char* bad : {"", " \n\n", "\xff."}) {
    std::ofstream(path) << bad;
    EXPECT_THROW(Haystack::read(path), Error) << bad;
  }
  std::remove(path.c_str());
  EXPECT_THROW(Haystack::read(path), Error);
}

TEST(HideLines, PutsItemsInFrontOfLines) {
  const Lines lines = {"a", "b"};
  EXPECT_EQ(hide_lines(lines, {"x", "y", "z"}, {0, 2, 2}, " "), "x a b y z");
  EXPECT_EQ(hide_lines(lines, {"x"}, {1}, "\n"), "a\nx\nb");
  EXPECT_EQ(hide_lines({}, {"x"}, {0}, " "), "x");
}

TEST(HideLines, DepthsReachBothEndsAndDiffer) {
  std::set<std::int64_t> seen;
  for (std::uint64_t key = 0; key < 400; ++key) {
    const auto places = depth_places(Random(key), 390, 4);
    EXPECT_EQ(std::set<std::int64_t>(places.begin(), places.end()).size(), 4U);
    EXPECT_TRUE(std::is_sorted(places.begin(), places.end()));
    seen.insert(places.begin(), places.end());
  }
  EXPECT_EQ(seen.size(), 40U);
  EXPECT_EQ(*seen.begin(), 0);
  EXPECT_EQ(*seen.rbegin(), 390);
}

}  // namespace
}  // namespace starattn
