// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/sentencepiece_model.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "model_folder.h"

namespace starattn {
namespace {

using Tokens = std::vector<Token>;

const std::string kModel =
    read_file(STARATTN_SOURCE_DIR "/tests/golden/tokenizer/sentencepiece/tokenizer.model", 1 << 20);

class SentencePiece : public ::testing::Test {
 protected:
  SentencePiece() { folder_.write("tokenizer.model", kModel); }
  ModelFolder folder_;
};

TEST_F(SentencePiece, PutsBosInFrontUnlessToldNotTo) {
  const Token bos = folder_.open()->find_token("<s>");
  EXPECT_GE(bos, 0);
  EXPECT_EQ(folder_.open()->prefix(), Tokens{bos});
  folder_.write("tokenizer_config.json", Json{{"add_bos_token", false}});
  EXPECT_EQ(folder_.open()->prefix(), Tokens{});
}

TEST_F(SentencePiece, ParsesControlTokensOnlyWhenAsked) {
  const auto tokenizer = folder_.open();
  const Token end = tokenizer->find_token("</s>");
  EXPECT_EQ(tokenizer->encode("</s>", SpecialTokens::parse), Tokens{end});
  const Tokens text = tokenizer->encode("</s>", SpecialTokens::text);
  EXPECT_EQ(std::count(text.begin(), text.end(), end), 0);
  EXPECT_EQ(tokenizer->decode(text, true), "</s>");
  EXPECT_TRUE(tokenizer->is_special(end));
  EXPECT_EQ(tokenizer->find_token("no such piece"), -1);
}

TEST_F(SentencePiece, TakesAddedTokensFromTheConfig) {
  const auto n_pieces = static_cast<Token>(folder_.open()->vocab_size());
  folder_.write("tokenizer_config.json",
                Json{{"added_tokens_decoder",
                      {{std::to_string(n_pieces), {{"content", "<pad>"}, {"special", true}}}}}});
  const auto tokenizer = folder_.open();
  EXPECT_EQ(tokenizer->vocab_size(), n_pieces + 1);
  EXPECT_EQ(tokenizer->encode("<pad>", SpecialTokens::parse), Tokens{n_pieces});
  EXPECT_EQ(tokenizer->bytes_of(n_pieces), "<pad>");
  folder_.write("tokenizer_config.json",
                Json{{"added_tokens_decoder", {{"5", {{"content", "<pad>"}, {"special", true}}}}}});
  EXPECT_NE(failure_of([&] { folder_.open(); }), "");
}

// added_tokens.json does not say what is markup: what special_tokens_map.json names, and what looks
// like it.
TEST_F(SentencePiece, LeavesLegacyMarkupInATextText) {
  const auto n = static_cast<Token>(folder_.open()->vocab_size());
  folder_.write("added_tokens.json",
                Json{{"<|im_end|>", n}, {"<|im_start|>", n + 1}, {"END", n + 2}, {"plain", n + 3}});
  folder_.write("special_tokens_map.json", Json{{"eos_token", {{"content", "END"}}},
                                                {"additional_special_tokens", {"<|im_end|>"}}});
  const auto tokenizer = folder_.open();
  for (const Token token : {n, n + 1, n + 2}) {
    const std::string content = tokenizer->bytes_of(token);
    const Tokens text = tokenizer->encode("a" + content, SpecialTokens::text);
    EXPECT_EQ(std::ranges::count(text, token), 0) << content;
    EXPECT_EQ(tokenizer->decode(text, true), "a" + content);
    EXPECT_EQ(tokenizer->encode(content, SpecialTokens::parse), Tokens{token});
  }
  EXPECT_EQ(tokenizer->encode("plain", SpecialTokens::text), Tokens{n + 3});

  const auto smaller = Tokenizer::open(folder_.path(), n);  // a model without the added tokens
  EXPECT_EQ(smaller->vocab_size(), n);
  for (const char* content : {"<|im_end|>", "plain"}) {
    for (const Token token : smaller->encode(content, SpecialTokens::parse)) EXPECT_LT(token, n);
  }
}

TEST_F(SentencePiece, ServesWhereTheJsonIsUnsupported) {
  Json json = tiny_tokenizer();
  json["model"]["type"] = "Unigram";
  folder_.write("tokenizer.json", json);
  EXPECT_GE(folder_.open()->find_token("<s>"), 0);
  json["model"]["type"] = "BPE";
  folder_.write("tokenizer.json", json);
  EXPECT_EQ(folder_.open()->find_token("<s>"), -1);  // the JSON's own
  json["model"]["vocab"] = 3;
  folder_.write("tokenizer.json", json);
  EXPECT_NE(failure_of([&] { folder_.open(); }), "");  // broken is not unsupported
}

TEST_F(SentencePiece, RefusesBrokenFiles) {
  for (const std::string& bytes :
       {std::string(), std::string("nonsense"), kModel.substr(0, kModel.size() / 2)}) {
    folder_.write("tokenizer.model", bytes);
    EXPECT_NE(failure_of([&] { folder_.open(); }), "");
  }
}

}  // namespace
}  // namespace starattn
