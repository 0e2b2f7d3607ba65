// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace starattn {
namespace {

std::string message_of(const std::string& message) {
  return Error(Exit::bad_data, message).what();
}

TEST(ErrorMessage, StaysAsItIsWhenItIsText) {
  EXPECT_EQ(message_of("naïve 東京"), "naïve 東京");
  EXPECT_EQ(message_of(""), "");
}

TEST(ErrorMessage, ShowsBytesThatAreNoText) {
  EXPECT_EQ(message_of("key '\xff\xc3' of \xed\xa0\x80"), "key '\\xff\\xc3' of \\xed\\xa0\\x80");
  EXPECT_EQ(message_of("\xe2\x96"), "\\xe2\\x96") << "a character that is not whole";
}

TEST(ErrorMessage, IsCutBetweenCharacters) {
  const std::string filler(1999, 'a');
  const std::string message = message_of(filler + "東" + filler);
  EXPECT_EQ(message, filler + " ...");
  EXPECT_TRUE(is_utf8(message));
  EXPECT_EQ(message_of(std::string(2000, 'b')), std::string(2000, 'b'));
  EXPECT_TRUE(is_utf8(message_of(std::string(5000, '\xff'))));
}

}  // namespace
}  // namespace starattn
