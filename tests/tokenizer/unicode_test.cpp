// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/unicode.h"

#include <gtest/gtest.h>

#include <random>

#include "base/text.h"

namespace starattn {
namespace {

const std::string kR(kReplacementCharacter);

// The examples of the Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal Subparts".
TEST(ToValidUtf8, ReplacesMaximalSubparts) {
  EXPECT_EQ(to_valid_utf8("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"),
            kR + kR + kR + kR + kR + kR + kR + kR + "A");
  EXPECT_EQ(to_valid_utf8("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"),
            kR + kR + kR + kR + kR + kR + kR + kR + "A");
  EXPECT_EQ(to_valid_utf8("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"),
            kR + kR + kR + kR + kR + "A" + kR + kR + "B");
  EXPECT_EQ(to_valid_utf8("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), kR + kR + kR + kR + "A");
}

TEST(ToValidUtf8, LeavesValidTextAlone) {
  const std::string text = "a\xc3\xa9\xe4\xb8\x96\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf";
  EXPECT_EQ(to_valid_utf8(text), text);
  EXPECT_EQ(to_valid_utf8(""), "");
}

TEST(FirstUnit, TellsIncompleteFromBroken) {
  EXPECT_EQ(first_unit("\xe4\xb8").kind, Utf8::incomplete);
  EXPECT_EQ(first_unit("\xf0\x9f\x98").n_bytes, 3U);
  EXPECT_EQ(first_unit("\xe0\x80").kind, Utf8::broken);  // would be overlong
  EXPECT_EQ(first_unit("\xed\xa0").kind, Utf8::broken);  // would be a surrogate
  EXPECT_EQ(first_unit("\x80").kind, Utf8::broken);
  EXPECT_EQ(first_unit("\xc3\xa9x").n_bytes, 2U);
}

TEST(FirstUnit, AgreesWithIsUtf8OnRandomBytes) {
  std::mt19937 random(1);
  const std::string bytes("\x41\x80\xbf\xc3\xe0\xa0\xed\x9f\xf0\x90\xf4\x8f\xff", 13);
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (unsigned n = random() % 6; n > 0; --n) text += bytes[random() % bytes.size()];
    bool all_characters = true;
    for (std::string_view rest = text; !rest.empty();) {
      const Utf8Unit unit = first_unit(rest);
      all_characters &= unit.kind == Utf8::character;
      rest.remove_prefix(unit.n_bytes);
    }
    EXPECT_EQ(all_characters, is_utf8(text));
    EXPECT_TRUE(is_utf8(to_valid_utf8(text)));
  }
}

TEST(Characters, EncodeAndDecode) {
  for (const char32_t character : {0x41, 0x7f, 0x80, 0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff}) {
    std::string text = "x";
    append_utf8(text, character);
    EXPECT_EQ(character_at(text, 1), character);
    EXPECT_EQ(character_bytes(text, 1), text.size() - 1);
    EXPECT_EQ(character_before(text, text.size()), 1U);
  }
}

TEST(Characters, HaveTheirKinds) {
  for (const char32_t c : {0x20, 0x0a, 0x85, 0xa0, 0x3000}) EXPECT_TRUE(is_white_space(c));
  for (const char32_t c : {0x41, 0x180e, 0x200b, 0xfeff}) EXPECT_FALSE(is_white_space(c));
  for (const char32_t c : {0x5f, 0x35, 0xe9, 0x301, 0x2167, 0x24d0, 0x200d}) {
    EXPECT_TRUE(is_word_character(c)) << static_cast<int>(c);
  }
  for (const char32_t c : {0x20, 0x2e, 0x2460, 0xbd}) EXPECT_FALSE(is_word_character(c));
}

}  // namespace
}  // namespace starattn
