// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/added_tokens.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

AddedToken token(Token id, const std::string& content, bool special = false) {
  AddedToken added;
  added.id = id;
  added.content = content;
  added.special = special;
  return added;
}

// "text|<1>|text"
std::string cut(const AddedTokens& tokens, const std::string& text,
                SpecialTokens special = SpecialTokens::parse) {
  std::string parts;
  const auto add = [&](const std::string& part) { parts += (parts.empty() ? "" : "|") + part; };
  tokens.cut(
      text, special, [&](std::string_view part) { add(std::string(part)); },
      [&](const AddedToken& found) { add("<" + std::to_string(found.id) + ">"); });
  return parts;
}

TEST(AddedTokens, AreCutOutLongestFirst) {
  AddedTokens tokens;
  tokens.add(token(1, "ab"));
  tokens.add(token(2, "abcd"));
  tokens.add(token(3, "cd"));
  EXPECT_EQ(cut(tokens, "xabcdy"), "x|<2>|y");
  EXPECT_EQ(cut(tokens, "abcab"), "<1>|c|<1>");
  EXPECT_EQ(cut(tokens, "abccd"), "<1>|c|<3>");
  EXPECT_EQ(cut(tokens, "ac"), "ac");
  EXPECT_EQ(cut(tokens, ""), "");
}

TEST(AddedTokens, LeaveSpecialOnesInPlainText) {
  AddedTokens tokens;
  tokens.add(token(1, "<|end|>", true));
  tokens.add(token(2, "|end|"));
  tokens.add(token(3, "plain"));
  EXPECT_EQ(cut(tokens, "a<|end|>plain"), "a|<1>|<3>");
  // As in `tokenizers`, what lies inside a special token that is stepped over is not looked at.
  EXPECT_EQ(cut(tokens, "a<|end|>plain", SpecialTokens::text), "a<|end|>|<3>");
  EXPECT_EQ(cut(tokens, "|end|", SpecialTokens::text), "<2>");
}

TEST(AddedTokens, TakeTheSpaceAroundThem) {
  AddedTokens tokens;
  AddedToken both = token(1, "M");
  both.lstrip = both.rstrip = true;
  tokens.add(both);
  EXPECT_EQ(cut(tokens, "a \xe3\x80\x80M\t\n b"), "a|<1>|b");
  EXPECT_EQ(cut(tokens, " M M "), "<1>|<1>");
}

TEST(AddedTokens, MayStandForSingleWordsOnly) {
  AddedTokens tokens;
  AddedToken word = token(1, "AB");
  word.single_word = true;
  tokens.add(word);
  EXPECT_EQ(cut(tokens, "AB AB. (AB)"), "<1>| |<1>|. (|<1>|)");
  EXPECT_EQ(cut(tokens,
                "xAB ABx AB_ \xc3\xa9"
                "AB AB\xcc\x81"),
            "xAB ABx AB_ \xc3\xa9"
            "AB AB\xcc\x81");
}

TEST(AddedTokens, AreFoundByTheirSpelling) {
  AddedTokens tokens;
  tokens.add(token(1, "content"), "spelling");
  tokens.add(token(2, "other"), "spelling");  // the first one counts
  tokens.add(token(3, "nothing"), "");
  EXPECT_EQ(cut(tokens, "content spelling"), "content |<1>");
}

}  // namespace
}  // namespace starattn
