// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "model_folder.h"

namespace starattn {
namespace {

const std::string kR = "\xef\xbf\xbd";  // U+FFFD

TEST(StreamDecoder, HoldsBackPartialCharacters) {
  const auto tokenizer = open_tokenizer(byte_tokenizer({}));
  StreamDecoder stream(*tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xf0), "");
  EXPECT_EQ(stream.push(0x9f), "");
  EXPECT_EQ(stream.push(0x98), "");
  EXPECT_EQ(stream.push(0x80), "\xf0\x9f\x98\x80");
  EXPECT_EQ(stream.push(0xe4), "");
  EXPECT_EQ(stream.push('b'), kR + "b");
  EXPECT_EQ(stream.push(0xc3), "");
  EXPECT_EQ(stream.finish(), kR);
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, LeavesOutSpecialTokens) {
  const auto tokenizer = open_tokenizer(byte_tokenizer({"<|end|>"}));
  StreamDecoder stream(*tokenizer);
  EXPECT_EQ(stream.push(0xc3), "");
  EXPECT_EQ(stream.push(256), "");
  EXPECT_EQ(stream.push(0xa9), "\xc3\xa9");
}

TEST(StreamDecoder, DropsTheSpaceInFrontOfAText) {
  Json json = tiny_tokenizer();
  json["decoder"] = Json::parse(R"({"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  const auto tokenizer = open_tokenizer(json);
  StreamDecoder stream(*tokenizer);
  EXPECT_EQ(stream.push(5), "");
  EXPECT_EQ(stream.push(5), " ");
  EXPECT_EQ(stream.push(4), "abc");
  EXPECT_EQ(tokenizer->bytes_of(5), " ");
}

TEST(StreamDecoder, GivesWhatDecodeGives) {
  const auto tokenizer = open_tokenizer(byte_tokenizer({"<|end|>"}));
  std::mt19937 random(1);
  const std::vector<Token> likely = {'a',  0x80, 0xa9, 0xbf, 0xc3, 0xe0,
                                     0xed, 0xf0, 0xf4, 256,  0xff};
  for (int round = 0; round < 5000; ++round) {
    std::vector<Token> tokens;
    for (unsigned n = random() % 8; n > 0; --n) tokens.push_back(likely[random() % likely.size()]);
    StreamDecoder stream(*tokenizer);
    std::string text;
    for (const Token token : tokens) text += stream.push(token);
    EXPECT_EQ(text + stream.finish(), tokenizer->decode(tokens, true));
  }
}

}  // namespace
}  // namespace starattn
