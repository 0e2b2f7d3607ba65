// SPDX-License-Identifier: Apache-2.0
// Seeded random texts come back as they went in; damaged tokenizer files end in an error or in a
// tokenizer that still works, never in anything else.
#include <gtest/gtest.h>

#include <random>

#include "base/file.h"
#include "model_folder.h"
#include "tokenizer/unicode.h"

namespace starattn {
namespace {

const std::string kGolden = STARATTN_SOURCE_DIR "/tests/golden/tokenizer/";

// Any characters but surrogates; ASCII, white space and marks are likelier.
std::string random_text(std::mt19937& random) {
  std::string text;
  for (unsigned n = random() % 50; n > 0; --n) {
    char32_t c = 0;
    switch (random() % 5) {
      case 0:
        c = random() % 0x80;
        break;
      case 1:
        c = U" \n\t'<|>1é"[random() % 9];
        break;
      case 2:
        c = 0x300 + random() % 0x40;
        break;
      case 3:
        c = random() % 0x3000;
        break;
      default:
        c = random() % 0x110000;
    }
    append_utf8(text, c >= 0xd800 && c < 0xe000 ? U'x' : c);
  }
  return text;
}

TEST(RandomTexts, SurviveByteLevelTokenizers) {
  for (const char* kind : {"llama3", "demo"}) {
    const std::string folder =
        kind == std::string("demo") ? STARATTN_SOURCE_DIR "/data/demo-model" : kGolden + kind;
    const auto tokenizer = Tokenizer::open(folder);
    std::mt19937 random(7);
    for (int i = 0; i < 3000; ++i) {
      const std::string text = random_text(random);
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, SpecialTokens::text), true), text);
    }
  }
}

TEST(RandomTexts, KeepTheirTokensWhenTheCacheKnowsThem) {
  const auto tokenizer = Tokenizer::open(kGolden + "llama2");
  std::mt19937 random(8);
  for (int i = 0; i < 20; ++i) {
    const std::string text = random_text(random);
    const auto first = tokenizer->encode(text, SpecialTokens::text);
    EXPECT_EQ(tokenizer->encode(text, SpecialTokens::text), first);
    EXPECT_EQ(Tokenizer::open(kGolden + "llama2")->encode(text, SpecialTokens::text), first);
  }
}

// Opens the folder and uses the tokenizer; only our own errors may come out.
bool opens(const ModelFolder& folder) {
  try {
    const auto tokenizer = folder.open();
    const auto tokens = tokenizer->encode("a b\xc3\xa9 12\n<|end|> the", SpecialTokens::parse);
    tokenizer->decode(tokens, false);
    for (Token token = -1; token < 600; ++token) tokenizer->bytes_of(token);
    return true;
  } catch (const Error& error) {
    EXPECT_TRUE(error.exit() == Exit::bad_data) << error.what();
    return false;
  }
}

TEST(DamagedFiles, EndInAnErrorOrAWorkingTokenizer) {
  std::mt19937 random(9);
  for (const char* kind : {"llama3", "steps", "llama2"}) {
    const std::string whole = read_file(kGolden + kind + "/tokenizer.json", 1 << 20);
    int n_opened = 0;
    ModelFolder folder;
    for (int i = 0; i < 300; ++i) {
      std::string damaged = whole;
      const std::string letters = "\"{}[],:0919.-\\ \xc3\xff\0ae";
      for (unsigned n = 1 + random() % 3; n > 0; --n) {
        // Half of the damage goes to the settings in front of the vocabulary.
        const std::size_t range = random() % 2 ? damaged.size() : damaged.find("\"vocab\"");
        damaged[random() % std::min(range, damaged.size())] = letters[random() % letters.size()];
      }
      folder.write("tokenizer.json", damaged);
      n_opened += opens(folder);
    }
    EXPECT_LT(n_opened, 300);
  }
}

// Replaces each value of the settings in turn by values of other kinds.
TEST(DamagedFiles, MayHaveAnyValueAnywhere) {
  const std::vector<Json> values = {nullptr,
                                    true,
                                    -1,
                                    1e300,
                                    "",
                                    "x",
                                    Json::array(),
                                    Json::object(),
                                    Json::array({Json::object()}),
                                    1ULL << 63,
                                    "[a",
                                    "\\"};
  for (const char* kind : {"steps", "metaspace", "llama2"}) {
    const Json whole = read_json_file(kGolden + kind + "/tokenizer.json");
    const Json flat = whole.flatten();
    ModelFolder folder;
    for (const auto& [pointer, unused] : flat.items()) {
      if (pointer.starts_with("/model/vocab/") || pointer.starts_with("/model/merges/")) continue;
      // The value itself and everything around it.
      for (Json::json_pointer at(pointer); !at.empty(); at = at.parent_pointer()) {
        Json damaged = whole;
        damaged[at] = values[std::hash<std::string>{}(at.to_string() + kind) % values.size()];
        folder.write("tokenizer.json", damaged);
        opens(folder);
      }
    }
    SUCCEED();
  }
}

TEST(DamagedFiles, MayBeSentencePieceModels) {
  const std::string whole = read_file(kGolden + "sentencepiece/tokenizer.model", 1 << 20);
  std::mt19937 random(10);
  ModelFolder folder;
  for (int i = 0; i < 200; ++i) {
    std::string damaged = whole;
    for (unsigned n = 1 + random() % 4; n > 0; --n) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) damaged.resize(random() % damaged.size());
    folder.write("tokenizer.model", damaged);
    opens(folder);
  }
  folder.write("tokenizer.model", whole);
  EXPECT_TRUE(opens(folder));
}

TEST(DamagedFiles, MayNestDeeply) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += R"({"type":"Sequence","normalizers":[)";
  ModelFolder folder;
  folder.write("tokenizer.json", R"({"normalizer":)" + deep);
  EXPECT_FALSE(opens(folder));
}

}  // namespace
}  // namespace starattn
