// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_level.h"

#include <gtest/gtest.h>

#include <set>

namespace starattn {
namespace {

TEST(ByteAlphabet, WritesKnownLetters) {
  EXPECT_EQ(to_byte_alphabet(" the"), "\xc4\xa0the");           // Ġ
  EXPECT_EQ(to_byte_alphabet("\n"), "\xc4\x8a");                // Ċ
  EXPECT_EQ(to_byte_alphabet("\xc3\xa9"), "\xc3\x83\xc2\xa9");  // é is Ã©
  EXPECT_EQ(to_byte_alphabet("\xad"), "\xc5\x83");              // the last one, Ń
}

TEST(ByteAlphabet, IsOneToOne) {
  std::set<std::string> letters;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    letters.insert(to_byte_alphabet(bytes));
    EXPECT_EQ(from_byte_alphabet(to_byte_alphabet(bytes)), bytes);
  }
  EXPECT_EQ(letters.size(), 256U);
}

TEST(ByteAlphabet, RefusesOtherCharacters) {
  EXPECT_EQ(from_byte_alphabet("a b"), std::nullopt);
  EXPECT_EQ(from_byte_alphabet("\xe2\x96\x81"), std::nullopt);
  EXPECT_EQ(from_byte_alphabet("\xc5\x84"), std::nullopt);  // U+0144, one behind the last
}

}  // namespace
}  // namespace starattn
