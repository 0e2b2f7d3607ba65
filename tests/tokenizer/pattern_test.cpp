// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/pattern.h"

#include <gtest/gtest.h>

#include "model_folder.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

using Ranges = std::vector<std::pair<std::size_t, std::size_t>>;

Ranges matches(const Pattern& pattern, const std::string& text) {
  Ranges ranges;
  pattern.each_match(text,
                     [&](std::size_t begin, std::size_t end) { ranges.emplace_back(begin, end); });
  return ranges;
}
Ranges matches(const std::string& expression, const std::string& text) {
  return matches(Pattern::regex(expression, "test"), text);
}

TEST(Pattern, FindsWordsAndDigits) {
  EXPECT_EQ(matches(R"( ?\p{L}+|\p{N}{1,3})", "ab 1234"), (Ranges{{0, 2}, {3, 6}, {6, 7}}));
  EXPECT_EQ(matches(R"(\s+(?!\S)|\s+)", "a   b"), (Ranges{{1, 3}, {3, 4}}));
  EXPECT_EQ(matches(R"((?i:'s|'ll))", "x'S y'LL"), (Ranges{{1, 3}, {5, 8}}));
  EXPECT_EQ(matches(R"(\p{Han}+)", "a\xe4\xb8\x96\xe7\x95\x8c"), (Ranges{{1, 7}}));
}

// Of GPT-OSS.
TEST(Pattern, TakesTheWordsOfO200k) {
  const std::string ending = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)";
  const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])",
                    lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
  const std::string first = R"([^\r\n\p{L}\p{N}]?)";
  const std::string o200k = first + upper + "*" + lower + "+" + ending + "|" + first + upper + "+" +
                            lower + "*" + ending + R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" +
                            R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(matches(o200k, "HTMLPage's 1234"), (Ranges{{0, 10}, {10, 11}, {11, 14}, {14, 15}}));
  EXPECT_EQ(matches(o200k, "don't /a/\n\n  b"),
            (Ranges{{0, 5}, {5, 7}, {7, 8}, {8, 11}, {11, 12}, {12, 14}}));
}

TEST(Pattern, TakesLiteralsLiterally) {
  EXPECT_EQ(matches(Pattern::literal(".", "test"), "a.b"), (Ranges{{1, 2}}));
  EXPECT_EQ(matches(Pattern::literal("\\E", "test"), "a\\Eb"), (Ranges{{1, 3}}));
}

// What `tokenizers` (Oniguruma) does with the same patterns.
TEST(Pattern, HasOnigurumasSets) {
  EXPECT_EQ(matches(R"(\s)", "\xe1\xa0\x8e\xc2\x85\x1c"), (Ranges{{3, 5}}));  // U+180E, U+0085
  EXPECT_EQ(matches(R"([^\s])", "\xc2\x85\x1c"), (Ranges{{2, 3}}));
  EXPECT_EQ(matches(R"([\S])", "\xe3\x80\x80x"), (Ranges{{3, 4}}));
  EXPECT_EQ(matches(R"(\w)", "\xcc\x81\xe2\x80\xbf\xe2\x91\xa0\xe2\x93\x90"),
            (Ranges{{0, 2}, {2, 5}, {8, 11}}));  // U+0301, U+203F, not U+2460, U+24D0
  EXPECT_EQ(matches(R"(\w+\b)", "e\xcc\x81!"), (Ranges{{0, 3}}));
  EXPECT_EQ(matches(R"(x\B)", "xx"), (Ranges{{0, 1}}));
  EXPECT_EQ(matches(R"(\d+)", "1\xd9\xa3\xc2\xbd"), (Ranges{{0, 3}}));
  EXPECT_EQ(matches(R"(\h+)", "xfF0 g"), (Ranges{{1, 4}}));
  EXPECT_EQ(matches(R"(^b|c$)", "a\nbc\nc"), (Ranges{{2, 3}, {3, 4}, {5, 6}}));
  EXPECT_EQ(matches(R"(.)", "a\r\n"), (Ranges{{0, 1}, {1, 2}}));
  EXPECT_EQ(matches(R"(\u00e9)", "\xc3\xa9"), (Ranges{{0, 2}}));
  EXPECT_EQ(matches(R"(a{,2})", "aaa"), (Ranges{{0, 2}, {2, 3}}));
  EXPECT_EQ(matches(R"([]a])", "]"), (Ranges{{0, 1}}));
}

TEST(Pattern, ReportsEmptyMatchesOnce) {
  EXPECT_EQ(matches("x*", "axb"), (Ranges{{0, 0}, {1, 2}, {3, 3}}));
  EXPECT_EQ(matches("x*", "\xc3\xa9"), (Ranges{{0, 0}, {2, 2}}));
  EXPECT_EQ(matches("x*", ""), (Ranges{{0, 0}}));
}

TEST(Pattern, RefusesWhatPcre2WouldReadDifferently) {
  for (const char* expression : {R"([a-z&&[^b]])", R"([a[bc]])", R"(\p{N}{1,3}+)", R"((?m:.))",
                                 R"(a(?i)b|c)", R"([\W])", R"(\u12)", R"(\pL)"}) {
    EXPECT_THROW(Pattern::regex(expression, "test"), UnsupportedTokenizer) << expression;
  }
  EXPECT_EQ(matches("(?i)ab", "AB"), (Ranges{{0, 2}}));
}

TEST(Pattern, NamesTheByteOfASyntaxError) {
  const std::string message = failure_of([] { Pattern::regex("a(b", "tokenizer.json"); });
  EXPECT_NE(message.find("tokenizer.json: pattern 'a(b', byte 3"), std::string::npos) << message;
  EXPECT_NE(failure_of([] { Pattern::regex("", "test"); }), "");
  EXPECT_NE(failure_of([] { Pattern::regex("\\", "test"); }), "");
  EXPECT_NE(failure_of([] { Pattern::regex(R"(\C)", "test"); }), "");  // half a character
}

TEST(Pattern, GivesUpOnEndlessBacktracking) {
  const Pattern pattern = Pattern::regex("(a|aa)+$", "tokenizer.json");
  const std::string message = failure_of([&] { matches(pattern, std::string(100, 'a') + "b"); });
  EXPECT_NE(message.find("takes too long behind byte 0 of 101"), std::string::npos) << message;
}

TEST(Pattern, TakesMegabytesInOneMatch) {
  constexpr std::size_t kSize = std::size_t{4} << 20;
  const std::string llama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                             R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const Pattern pattern = Pattern::regex(llama3, "test");
  EXPECT_EQ(matches(pattern, std::string(kSize, 'a')), (Ranges{{0, kSize}}));
  EXPECT_EQ(matches(pattern, std::string(kSize, ' ')), (Ranges{{0, kSize}}));
  EXPECT_EQ(matches(pattern, std::string(kSize, '\n')), (Ranges{{0, kSize}}));
  EXPECT_EQ(matches(pattern, std::string(kSize, '!')), (Ranges{{0, kSize}}));
}

}  // namespace
}  // namespace starattn
