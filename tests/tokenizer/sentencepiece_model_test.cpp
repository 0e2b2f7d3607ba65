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
