// SPDX-License-Identifier: Apache-2.0
#include "grammar/regex.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "matching.h"

namespace starattn {
namespace {

using testing::matches;
using testing::new_expressions;

bool matches_regex(std::string_view regex, std::string_view text, RegexUse use = RegexUse::answer) {
  Expressions in = new_expressions();
  return matches(in, parse_regex(in, regex, use, "test"), text);
}

std::string refusal(std::string_view regex, RegexUse use = RegexUse::answer) {
  Expressions in = new_expressions();
  try {
    parse_regex(in, regex, use, "--regex");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Regex, ClassesAndEscapes) {
  EXPECT_TRUE(matches_regex("[a-cx]\\d\\w\\s", "b7_ "));
  EXPECT_TRUE(matches_regex("[^a-c]", "d"));
  EXPECT_TRUE(matches_regex("[^a-c]", "é"));
  EXPECT_FALSE(matches_regex("[^a-c]", "b"));
  EXPECT_TRUE(matches_regex("[\\d-]+", "1-2"));
  EXPECT_TRUE(matches_regex("[a\\]\\-^]*", "]-^a"));
  EXPECT_TRUE(matches_regex("\\x41\\u00e9\\u{1F600}\\ud83d\\ude00", "Aé😀😀"));
  EXPECT_TRUE(matches_regex("\\.\\*\\/\\t\\n", ".*/\t\n"));
  EXPECT_TRUE(matches_regex("\\D\\W\\S", "x!y"));
  EXPECT_FALSE(matches_regex("\\D", "5"));
  EXPECT_TRUE(matches_regex("[\\b]", "\b"));
  EXPECT_TRUE(matches_regex(".", "é"));
  EXPECT_FALSE(matches_regex(".", "\n"));
}

TEST(Regex, CharactersAreWholeInUtf8) {
  EXPECT_TRUE(matches_regex("[α-ω]{3}", "αβγ"));
  EXPECT_FALSE(matches_regex("[α-ω]", "\xce"));
  EXPECT_FALSE(matches_regex(".", "\xc3\x28"));
  EXPECT_FALSE(matches_regex(".", "\xed\xa0\x80")) << "a surrogate";
  EXPECT_FALSE(matches_regex(".", "\xc0\x80")) << "an overlong form";
  Expressions in = new_expressions();
  const Expression any = parse_regex(in, "[^\\]]", RegexUse::answer, "test");
  for (char32_t c = 1; c < 0x110000; c += c < 0x3000 ? 1 : 97) {
    if ((c >= 0xd800 && c < 0xe000) || c == ']') continue;
    std::string text;
    if (c < 0x80) {
      text = {static_cast<char>(c)};
    } else if (c < 0x800) {
      text = {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      text = {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
              static_cast<char>(0x80 | (c & 63))};
    } else {
      text = {static_cast<char>(0xf0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
              static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    }
    ASSERT_TRUE(matches(in, any, text)) << static_cast<unsigned>(c);
  }
}

TEST(Regex, GroupsAndRepetitions) {
  EXPECT_TRUE(matches_regex("^(?:ab|c)+?(?<year>\\d{4})$", "abc1999"));
  EXPECT_TRUE(matches_regex("a{2}b{0,1}c{1,}", "aacc"));
  EXPECT_FALSE(matches_regex("a{2}b{0,1}c{1,}", "aabbc"));
  EXPECT_TRUE(matches_regex("(|a)b", "b"));
  EXPECT_TRUE(matches_regex("yes|no", "no"));
}

TEST(Regex, APatternIsFoundAnywhereUnlessItIsBound) {
  EXPECT_TRUE(matches_regex("b+", "abba", RegexUse::pattern));
  EXPECT_FALSE(matches_regex("^b+", "abba", RegexUse::pattern));
  EXPECT_TRUE(matches_regex("^ab|x$", "abc", RegexUse::pattern));
  EXPECT_TRUE(matches_regex("^ab|x$", "cx", RegexUse::pattern));
  EXPECT_FALSE(matches_regex("^ab|x$", "cab", RegexUse::pattern));
  EXPECT_TRUE(matches_regex("^[\"\\\\\\n]{3}$", R"(\"\\\n)", RegexUse::pattern));
  EXPECT_FALSE(matches_regex("^\"$", "\"", RegexUse::pattern)) << "a quote has to be escaped";
  EXPECT_TRUE(matches_regex("^\\x01$", "\\u0001", RegexUse::pattern));
}

TEST(Regex, WhatIsNotSupportedIsNamedWithItsPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {"a(?=b)", "looking ahead"},
      {"(a)\\1", "references to groups"},
      {"\\bword", "borders of words"},
      {"\\p{L}", "Unicode properties"},
      {"(a", "a group has no end"},
      {"a)", "nothing opened"},
      {"[a", "a class has no end"},
      {"[[:alpha:]]+", "classes of POSIX"},
      {"[]", "an empty class"},
      {"a**", "repetition of a repetition"},
      {"*a", "nothing stands before"},
      {"a{3,1}", "the first count"},
      {"a{x}", "expected a count"},
      {"a{9999999999}", "counts go up to"},
      {"[z-a]", "comes before"},
      {"[a-\\d]", "a character on each side"},
      {"a^b", "may only stand around"},
      {"(^a)", "may only stand around"},
      {"\\q", "no such escape"},
      {"\\u12", "hexadecimal"},
      {"\\ud800", "half of a pair"},
      {"\\u{110000}", "no such character"},
      {"[^\\s\\S]", "no character belongs"},
      {"\\", "a backslash at the end"},
      {"(?i)a", "only (?:...)"},
      {"(?<x", "no end"},
      {"a++", "repetition of a repetition"},
      {"\xff", "not UTF-8"},
  };
  for (const auto& [regex, why] : cases) {
    EXPECT_NE(refusal(regex).find(why), std::string::npos) << regex << ": " << refusal(regex);
  }
  EXPECT_NE(refusal("abc(?=d)").find("--regex: character 4"), std::string::npos);
  EXPECT_NE(refusal(std::string(1000, '(')).find("too deeply"), std::string::npos);
  EXPECT_NE(refusal(std::string(100'000, 'a')).find("at most"), std::string::npos);
}

}  // namespace
}  // namespace starattn
