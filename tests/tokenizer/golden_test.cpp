// SPDX-License-Identifier: Apache-2.0
// Token ids and decoded text equal to the `tokenizers` and `sentencepiece` libraries' on awkward
// texts (tests/golden/tokenizer, made by scripts/make_tokenizer_goldens.py).
#include <gtest/gtest.h>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

namespace starattn {
namespace {

const std::string kGolden = STARATTN_SOURCE_DIR "/tests/golden/tokenizer/";
const std::string kDemo = STARATTN_SOURCE_DIR "/data/demo-model";

class Golden : public ::testing::TestWithParam<std::string> {
 protected:
  std::string folder_ = GetParam() == "demo" ? kDemo : kGolden + GetParam();
  std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::open(folder_);
  Json texts_ = read_json_file(kGolden + "texts.json");
  Json expected_ = read_json_file(kGolden + GetParam() + "/expected.json");

  // What the library made of text i; the text itself where nothing is recorded.
  std::string decoded(std::size_t i) const {
    const auto it = expected_["decoded"].find(std::to_string(i));
    return it == expected_["decoded"].end() ? texts_[i].get<std::string>() : it->get<std::string>();
  }
};

TEST_P(Golden, EncodesSpecialTokensAsText) {
  ASSERT_GE(texts_.size(), 500U);
  ASSERT_EQ(texts_.size(), expected_["ids"].size());
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    EXPECT_EQ(tokenizer_->encode(texts_[i].get<std::string>(), SpecialTokens::text),
              expected_["ids"][i].get<std::vector<Token>>())
        << i << ": " << texts_[i].dump();
  }
}

TEST_P(Golden, Decodes) {
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    EXPECT_EQ(tokenizer_->decode(expected_["ids"][i].get<std::vector<Token>>(), true), decoded(i))
        << i << ": " << texts_[i].dump();
  }
}

TEST_P(Golden, StreamsWhatItDecodes) {
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    StreamDecoder stream(*tokenizer_);
    std::string text;
    for (const Json& id : expected_["ids"][i]) text += stream.push(id.get<Token>());
    EXPECT_EQ(text + stream.finish(), decoded(i)) << i << ": " << texts_[i].dump();
  }
}

TEST_P(Golden, ParsesSpecialTokens) {
  const Json& parsed = expected_["parsed"];
  const bool library_parses = GetParam() != "sentencepiece";
  ASSERT_EQ(!parsed.empty(), library_parses);
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    const auto text = texts_[i].get<std::string>();
    const auto it = parsed.find(std::to_string(i));
    if (it == parsed.end()) {
      if (!library_parses) continue;
      EXPECT_EQ(tokenizer_->encode(text, SpecialTokens::parse),
                expected_["ids"][i].get<std::vector<Token>>())
          << i << ": " << texts_[i].dump();
      continue;
    }
    const auto ids = (*it)[0].get<std::vector<Token>>();
    EXPECT_EQ(tokenizer_->encode(text, SpecialTokens::parse), ids) << i << ": " << texts_[i].dump();
    EXPECT_EQ(tokenizer_->decode(ids, false), (*it)[1].get<std::string>()) << texts_[i].dump();
    EXPECT_EQ(tokenizer_->decode(ids, true), (*it)[2].get<std::string>()) << texts_[i].dump();
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Golden,
                         ::testing::Values("llama3", "qwen2", "gpt2", "cased", "steps", "falcon3",
                                           "gaps", "llama2", "metaspace", "metaspace_old", "demo",
                                           "sentencepiece"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace starattn
