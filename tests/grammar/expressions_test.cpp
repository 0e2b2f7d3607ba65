// SPDX-License-Identifier: Apache-2.0
#include "grammar/expressions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>

#include "base/error.h"
#include "base/random.h"
#include "grammar/regex.h"
#include "matching.h"

namespace starattn {
namespace {

using testing::all_texts;
using testing::behind;
using testing::matches;
using testing::new_expressions;

std::string random_regex(Random& random, int depth) {
  if (depth == 0) return std::string(1, "abc."[random.below(4)]);
  const auto part = [&] { return random_regex(random, depth - 1); };
  switch (random.below(9)) {
    case 0:
      return "(" + part() + "|" + part() + ")";
    case 1:
      return "(" + part() + ")*";
    case 2:
      return "(" + part() + ")+";
    case 3:
      return "(" + part() + ")?";
    case 4:
      return "(" + part() + "){1,3}";
    case 5:
      return "(" + part() + "){2}";
    case 6:
      return "[ab]" + part();
    default:
      return part() + part();
  }
}

TEST(Expressions, MatchWhatTheStandardLibraryMatches) {
  const std::vector<std::string> texts = all_texts(5);
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    const std::string text = random_regex(random, 3);
    const std::regex regex(text);
    Expressions in = new_expressions();
    const Expression e = parse_regex(in, text, RegexUse::answer, "test");
    for (const std::string& candidate : texts)
      ASSERT_EQ(matches(in, e, candidate), std::regex_match(candidate, regex))
          << text << " and '" << candidate << "'";
  }
}

// An expression is nothing only where no text goes on from it: every state can be finished.
TEST(Expressions, WhatIsLeftCanBeFinished) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    const std::string text = random_regex(random, 4);
    Expressions in = new_expressions();
    const Expression e = parse_regex(in, text, RegexUse::answer, "test");
    const auto can_end = [&](Expression start) {
      std::vector<Expression> reached{start};
      for (std::size_t i = 0; i < reached.size(); ++i) {
        if (in.may_end(reached[i])) return true;
        for (const unsigned char byte : in.ranges(reached[i])) {
          const Expression next = in.after(reached[i], byte);
          if (next != kNoText && std::ranges::count(reached, next) == 0) reached.push_back(next);
        }
      }
      return false;
    };
    for (const std::string& candidate : all_texts(3)) {
      const Expression rest = behind(in, e, candidate);
      ASSERT_TRUE(rest == kNoText || can_end(rest)) << text << " behind " << candidate;
    }
  }
}

TEST(Expressions, RangesAreWhereWhatFollowsChanges) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    Expressions in = new_expressions();
    const Expression e = parse_regex(in, random_regex(random, 4), RegexUse::answer, "test");
    std::vector<unsigned char> ranges = in.ranges(e);
    ASSERT_EQ(ranges.front(), 0);
    for (unsigned byte = 1; byte < 256; ++byte) {
      const auto here = static_cast<unsigned char>(byte);
      const bool may_change = std::ranges::find(ranges, here) != ranges.end();
      ASSERT_TRUE(may_change ||
                  in.after(e, here) == in.after(e, static_cast<unsigned char>(byte - 1)));
    }
  }
}

TEST(Expressions, EqualOnesHaveOneNumber) {
  Expressions in = new_expressions();
  const Expression a = in.text("a");
  const Expression b = in.text("bc");
  EXPECT_EQ(in.either({a, b}), in.either({b, a, a}));
  EXPECT_EQ(in.sequence(in.sequence(a, b), a), in.sequence(a, in.sequence(b, a)));
  EXPECT_EQ(in.repeat(in.repeat(a, 0), 0), in.repeat(a, 0));
  EXPECT_EQ(in.either({a, in.text("d")}), in.either({in.text("d"), a}));
  EXPECT_EQ(in.sequence(a, kNoText), kNoText);
  EXPECT_EQ(in.repeat(kNoText, 0), kEmptyText);
  EXPECT_EQ(in.any_of_texts({"ab", "ac", "a"}), in.any_of_texts({"a", "ac", "ab", "ab"}));
}

TEST(Expressions, CountsOfBillionsTakeNoMemory) {
  Expressions in = new_expressions();
  const Expression some = in.sequence(in.repeat(in.text("a"), 2, 1'000'000'000), in.text("b"));
  const Expression e = in.repeat(some, 1'000'000'000);
  std::string text;
  for (int i = 0; i < 100; ++i) text += std::string(10, 'a') + "b";
  const std::size_t n_parts = in.n_parts();
  EXPECT_FALSE(matches(in, e, text));
  EXPECT_NE(behind(in, e, text), kNoText);
  EXPECT_LT(in.n_parts(), n_parts + 10'000);
}

// (a|b)*a(a|b){40} has 2^41 states.
TEST(Expressions, ExponentialPatternsAreFollowedWhereTheTextGoes) {
  Expressions in = new_expressions();
  const Expression e = parse_regex(in, "(a|b)*a(a|b){40}", RegexUse::answer, "test");
  EXPECT_TRUE(matches(in, e, std::string(60, 'b') + "a" + std::string(40, 'b')));
  EXPECT_FALSE(matches(in, e, std::string(60, 'b') + "b" + std::string(40, 'a')));
  EXPECT_LT(in.n_parts(), 20'000u);
}

TEST(Expressions, ThroughEndsAtTheFirstOccurrence) {
  Expressions in = new_expressions();
  const Expression e = in.sequence(in.through("aab"), in.text("x"));
  for (const char* text : {"aabx", "aaabx", "ab aabx",
                           "\xff\xfe"
                           "aabx"})
    EXPECT_TRUE(matches(in, e, text)) << text;
  for (const char* text : {"aab", "aabaabx", "abx", "x"})
    EXPECT_FALSE(matches(in, e, text)) << text;
}

// within(e, n) goes on behind a text of up to n bytes where e does.
TEST(Expressions, WithinTellsTextsOfThatLengthApart) {
  constexpr std::uint32_t kBytes = 4;
  const char* regexes[] = {"a{2,100}b",         "(ab?){3,9}c",    "a{7}",       "(a{5}|b{90}c)*",
                           "(a{2,6}b{5,5}){6}", "[ab]{0,50}c{9}", "(a|b{8,})+c"};
  for (const char* regex : regexes) {
    Expressions in = new_expressions();
    const Expression e = parse_regex(in, regex, RegexUse::answer, "test");
    for (const std::string& start : all_texts(4)) {
      const Expression rest = behind(in, e, start);
      const Expression less = in.within(rest, kBytes);
      for (const std::string& text : all_texts(kBytes))
        ASSERT_EQ(behind(in, rest, text) != kNoText, behind(in, less, text) != kNoText)
            << regex << ": " << start << " + " << text;
    }
  }
}

TEST(Expressions, WithinMakesLongRepetitionsOneState) {
  Expressions in = new_expressions();
  const Expression e = parse_regex(in, "a{0,5000}b", RegexUse::answer, "test");
  EXPECT_EQ(in.within(behind(in, e, "a"), 10), in.within(behind(in, e, "aaa"), 10));
}

TEST(Expressions, ACopyMatchesTheSame) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    Expressions from = new_expressions();
    const Expression e = parse_regex(from, random_regex(random, 4), RegexUse::answer, "test");
    Expressions to = new_expressions();
    std::unordered_map<Expression, Expression> copied;
    const Expression copy = to.copy(from, e, copied);
    for (const std::string& text : all_texts(4))
      ASSERT_EQ(matches(from, e, text), matches(to, copy, text));
  }
}

TEST(Expressions, WhatCannotBeWrittenIsKnown) {
  Expressions in(ByteSet().set('a').set('b'));
  EXPECT_TRUE(in.can_be_written(in.text("ab")));
  EXPECT_FALSE(in.can_be_written(in.text("abc")));
  EXPECT_TRUE(in.can_be_written(in.either({in.text("abc"), in.text("b")})));
  EXPECT_TRUE(in.can_be_written(in.repeat(in.text("c"), 0)));
  EXPECT_FALSE(in.can_be_written(in.repeat(in.text("c"), 1)));
  EXPECT_FALSE(in.can_be_written(in.through("c")));
}

}  // namespace
}  // namespace starattn
