// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <random>

#include "model_folder.h"
#include "tokenizer/bpe_model.h"
#include "tokenizer/bpe_seams.h"

namespace starattn {
namespace {

std::vector<Token> merged(const MergeTable& merges, std::vector<Token> symbols) {
  merge_symbols(merges, symbols);
  return symbols;
}

TEST(MergeSymbols, TakesTheLowestRankFirst) {
  MergeTable merges;
  merges.reserve(2);
  merges.add(1, 2, {1, 10});
  merges.add(2, 3, {0, 11});
  EXPECT_EQ(merged(merges, {1, 2, 3}), (std::vector<Token>{1, 11}));
  EXPECT_EQ(merged(merges, {1, 2}), (std::vector<Token>{10}));
  EXPECT_EQ(merged(merges, {3, 2, 1}), (std::vector<Token>{3, 2, 1}));
  EXPECT_EQ(merged(merges, {}), (std::vector<Token>{}));
}

TEST(MergeSymbols, TakesTheLeftmostOfEqualRank) {
  MergeTable merges;
  merges.reserve(1);
  merges.add(1, 1, {0, 2});
  EXPECT_EQ(merged(merges, {1, 1, 1}), (std::vector<Token>{2, 1}));
  EXPECT_EQ(merged(merges, {1, 1, 1, 1, 1}), (std::vector<Token>{2, 2, 1}));
}

// The definition, in quadratic time.
std::vector<Token> merged_by_definition(const MergeTable& merges, std::vector<Token> symbols) {
  for (;;) {
    std::size_t best = symbols.size();
    const BpeMerge* lowest = nullptr;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const BpeMerge* merge = merges.find(symbols[i], symbols[i + 1]);
      if (merge && (!lowest || merge->rank < lowest->rank)) {
        lowest = merge;
        best = i;
      }
    }
    if (!lowest) return symbols;
    symbols[best] = lowest->merged;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(MergeSymbols, AgreesWithTheDefinition) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    MergeTable merges;
    merges.reserve(40);
    for (Token merge = 0; merge < 40; ++merge) {  // each pair makes a token of its own
      const auto left = static_cast<Token>(random() % static_cast<unsigned>(4 + merge));
      const auto right = static_cast<Token>(random() % static_cast<unsigned>(4 + merge));
      if (!merges.find(left, right)) {
        merges.add(left, right, {static_cast<std::uint32_t>(merge), 4 + merge});
      }
    }
    std::vector<Token> symbols;
    for (int i = 0; i < 60; ++i) symbols.push_back(static_cast<Token>(random() % 4));
    EXPECT_EQ(merged(merges, symbols), merged_by_definition(merges, symbols));
  }
}

TEST(MergeSymbols, TakesAMillionSymbols) {
  MergeTable merges;
  merges.reserve(20);
  for (Token i = 0; i < 20; ++i) merges.add(i, i, {static_cast<std::uint32_t>(i), i + 1});
  EXPECT_EQ(merged(merges, std::vector<Token>(std::size_t{1} << 20, 0)), (std::vector<Token>{20}));
}

BpeModel model_of(const Json& json) {
  return BpeModel(JsonObject(json, "test"));
}

std::vector<Token> encode(const BpeModel& model, const std::string& word) {
  std::vector<Token> tokens;
  model.encode(word, tokens, [](std::string_view) {});
  return tokens;
}

TEST(BpeModel, FallsBackToBytesThenToUnknown) {
  Json json = Json::parse(R"({"type": "BPE", "unk_token": "?", "byte_fallback": true, "merges": [],
    "vocab": {"?": 0, "a": 1, "<0xC3>": 2, "<0xA9>": 3}})");
  EXPECT_EQ(encode(model_of(json),
                   "a\xc3\xa9"
                   "a"),
            (std::vector<Token>{1, 2, 3, 1}));
  EXPECT_EQ(encode(model_of(json), "xy"), (std::vector<Token>{0, 0}));
  EXPECT_EQ(encode(model_of(json),
                   "x\xc3\xa9"
                   "a"),
            (std::vector<Token>{2, 3, 0, 1}));
  json["fuse_unk"] = true;
  EXPECT_EQ(encode(model_of(json), "xya"), (std::vector<Token>{0, 1}));
}

// As the `tokenizers` library does: what stands beside them may merge.
TEST(BpeModel, DropsCharactersThatNothingStandsFor) {
  std::vector<Token> tokens;
  std::string dropped;
  model_of(tiny_tokenizer()["model"]).encode("axébc", tokens, [&](std::string_view character) {
    dropped += character;
  });
  EXPECT_EQ(tokens, std::vector<Token>{4});
  EXPECT_EQ(dropped, "xé");
}

TEST(BpeModel, LooksUpWholeWordsWhenItIgnoresMerges) {
  Json json = tiny_tokenizer()["model"];
  json["vocab"]["ca"] = 6;
  EXPECT_EQ(encode(model_of(json), "ca"), (std::vector<Token>{2, 0}));
  json["ignore_merges"] = true;
  EXPECT_EQ(encode(model_of(json), "ca"), (std::vector<Token>{6}));
  EXPECT_EQ(encode(model_of(json), "cab"), (std::vector<Token>{2, 3}));
}

TEST(BpeModel, ReadsMergesInBothSpellings) {
  Json json = tiny_tokenizer()["model"];
  EXPECT_EQ(encode(model_of(json), "abc"), (std::vector<Token>{4}));
  json["merges"] = Json::parse(R"([["a", "b"], ["ab", "c"]])");
  EXPECT_EQ(encode(model_of(json), "abc"), (std::vector<Token>{4}));
}

TEST(BpeSeams, CutWhereNothingJoins) {
  const BpeModel model = model_of(tiny_tokenizer()["model"]);
  std::vector<std::string> parts;
  BpeSeams(model).cut("abcabba", [&](std::string_view part) { parts.emplace_back(part); });
  EXPECT_EQ(parts, (std::vector<std::string>{"abc", "ab", "b", "a"}));
}

TEST(BpeSeams, DoNotChangeTheTokens) {
  std::mt19937 random(2);
  for (int round = 0; round < 100; ++round) {
    Json json = Json::parse(R"({"type": "BPE", "unk_token": "?", "byte_fallback": true,
      "merges": [], "vocab": {"?": 0, "a": 1, "b": 2, "c": 3, "▁": 4, "é": 5, "<0xC3>": 6}})");
    json["fuse_unk"] = random() % 2 == 0;
    std::vector<std::string> contents = {"a", "b", "c", "▁", "é"};
    for (int i = 0; i < 6; ++i) {
      const std::string left = contents[random() % contents.size()];
      const std::string right = contents[random() % contents.size()];
      if (json["vocab"].contains(left + right)) continue;
      json["vocab"][left + right] = json["vocab"].size();
      json["merges"].push_back({left, right});
      contents.push_back(left + right);
    }
    const BpeModel model = model_of(json);
    const BpeSeams seams(model);
    const std::vector<std::string> characters = {"a", "b", "c", "▁", "é", "x", "世"};
    for (int i = 0; i < 20; ++i) {
      std::string word;
      for (int n = 0; n < 30; ++n) word += characters[random() % characters.size()];
      std::vector<Token> tokens;
      std::size_t n_parts = 0;
      seams.cut(word, [&](std::string_view part) {
        model.encode(part, tokens, [](std::string_view) {});
        ++n_parts;
      });
      EXPECT_EQ(tokens, encode(model, word)) << word << json;
      EXPECT_GT(n_parts, 1U);
    }
  }
}

}  // namespace
}  // namespace starattn
