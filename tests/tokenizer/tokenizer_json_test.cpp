// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/tokenizer_json.h"

#include <gtest/gtest.h>

#include "model_folder.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

using Tokens = std::vector<Token>;

// The message of opening a tokenizer that was changed for the worse.
std::string refusal(const std::function<void(Json&)>& change, Json tokenizer = tiny_tokenizer()) {
  change(tokenizer);
  return failure_of([&] { open_tokenizer(tokenizer); });
}

bool mentions(const std::string& message, const std::string& words) {
  EXPECT_NE(message.find(words), std::string::npos) << message;
  return message.find(words) != std::string::npos;
}

TEST(TokenizerJson, EncodesAndDecodes) {
  const auto tokenizer = open_tokenizer(tiny_tokenizer());
  EXPECT_EQ(tokenizer->encode("abcba\xe2\x96\x81", SpecialTokens::text), (Tokens{4, 1, 0, 5}));
  EXPECT_EQ(tokenizer->decode({4, 5, 1}, true), "abc b");
  EXPECT_EQ(tokenizer->encode("", SpecialTokens::text), Tokens{});
  EXPECT_EQ(tokenizer->decode({}, true), "");
  EXPECT_EQ(tokenizer->vocab_size(), 6);
  EXPECT_EQ(tokenizer->find_token("ab"), 3);
  EXPECT_EQ(tokenizer->find_token("x"), -1);
  EXPECT_EQ(tokenizer->bytes_of(77), "");
  EXPECT_EQ(tokenizer->bytes_of(-1), "");
  EXPECT_FALSE(tokenizer->is_special(77));
}

TEST(TokenizerJson, NamesTheByteThatIsNotUtf8) {
  const auto tokenizer = open_tokenizer(tiny_tokenizer());
  mentions(failure_of([&] { tokenizer->encode("ab\xff", SpecialTokens::text); }), "byte 2 of 3");
}

TEST(TokenizerJson, KeepsTextFromBecomingMarkup) {
  const auto tokenizer = open_tokenizer(byte_tokenizer({"<|end|>"}));
  EXPECT_EQ(tokenizer->encode("a<|end|>", SpecialTokens::parse), (Tokens{'a', 256}));
  EXPECT_EQ(tokenizer->encode("a<|end|>", SpecialTokens::text),
            (Tokens{'a', '<', '|', 'e', 'n', 'd', '|', '>'}));
  EXPECT_TRUE(tokenizer->is_special(256));
  EXPECT_EQ(tokenizer->bytes_of(256), "<|end|>");
  EXPECT_EQ(tokenizer->decode({'a', 256}, true), "a");
  EXPECT_EQ(tokenizer->decode({'a', 256}, false), "a<|end|>");
}

TEST(TokenizerJson, DecodesByteExactly) {
  const auto tokenizer = open_tokenizer(byte_tokenizer({}));
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(tokenizer->bytes_of(byte), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(tokenizer->decode({'a', 0xc3, 0xa9, 0xc3}, true), "a\xc3\xa9\xef\xbf\xbd");
}

TEST(TokenizerJson, FindsThePrefix) {
  Json json = byte_tokenizer({"<s>", "</s>"});
  json["post_processor"] = Json::parse(R"({"type": "Sequence", "processors": [
    {"type": "ByteLevel", "trim_offsets": true},
    {"type": "TemplateProcessing",
     "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}}],
     "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}}]})");
  EXPECT_EQ(open_tokenizer(json)->prefix(), Tokens{256});

  json["post_processor"]["processors"][1]["special_tokens"]["<s>"]["ids"][0] = 999;
  mentions(failure_of([&] { open_tokenizer(json); }), "999 is not the id of a token");
  json["post_processor"] = {{"type", "BertProcessing"}};
  mentions(failure_of([&] { open_tokenizer(json); }), "post-processor 'BertProcessing'");
}

TEST(TokenizerJson, LetsTheConfigDecideOnBos) {
  ModelFolder folder;
  folder.write("tokenizer.json", byte_tokenizer({"<s>"}));
  EXPECT_EQ(folder.open()->prefix(), Tokens{});
  Json config = {{"tokenizer_class", "LlamaTokenizerFast"},
                 {"add_bos_token", true},
                 {"bos_token", {{"content", "<s>"}}}};
  const auto prefix = [&] {
    folder.write("tokenizer_config.json", config);
    return folder.open()->prefix();
  };
  EXPECT_EQ(prefix(), Tokens{256});
  config["bos_token"] = "<t>";
  mentions(failure_of([&] { prefix(); }), "bos_token '<t>'");
  config["bos_token"] = "<s>";

  Json json = byte_tokenizer({"<s>"});
  json["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}})");
  folder.write("tokenizer.json", json);
  config["add_bos_token"] = false;
  EXPECT_EQ(prefix(), Tokens{});
  for (const char* other : {"PreTrainedTokenizerFast", "Qwen2Tokenizer", "GPT2Tokenizer"}) {
    config["tokenizer_class"] = other;
    EXPECT_EQ(prefix(), Tokens{256}) << other;
  }
  config.erase("tokenizer_class");
  EXPECT_EQ(prefix(), Tokens{256});
  folder.write("config.json", Json{{"model_type", "qwen2"}});
  EXPECT_EQ(prefix(), Tokens{256});
  folder.write("config.json", Json{{"model_type", "llama"}});  // whose class counts then
  EXPECT_EQ(prefix(), Tokens{});
}

TEST(TokenizerJson, DropsBytesWithoutATokenAndCountsThem) {
  Json json = byte_tokenizer({});
  for (const char* letter : {"\xc3\x83", "\xc4\x9d"})
    json["model"]["vocab"].erase(letter);  // 0xc3, 0x1d
  const auto tokenizer = open_tokenizer(json);
  for (std::int64_t n = 1; n <= 2; ++n) {  // the same word again
    EXPECT_EQ(tokenizer->encode("a\x1d\xc3\xa9", SpecialTokens::text), (Tokens{'a', 0xa9}));
    EXPECT_EQ(tokenizer->n_dropped_bytes(), 2 * n);
  }
}

// A text that mentions a token which the model has no embedding for is text, not an error.
TEST(TokenizerJson, HasNoAddedTokensBeyondTheModel) {
  ModelFolder folder;
  folder.write("tokenizer.json", byte_tokenizer({"<s>", "<pad>"}));
  const auto tokenizer = Tokenizer::open(folder.path(), 257);
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->find_token("<pad>"), -1);
  EXPECT_EQ(tokenizer->encode("<s><pad>", SpecialTokens::parse),
            (Tokens{256, '<', 'p', 'a', 'd', '>'}));
}

TEST(TokenizerJson, RefusesASecondByteLevel) {
  mentions(refusal([](Json& j) {
             const Json bytes = {{"type", "ByteLevel"}};
             j["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {bytes, bytes}}};
           }),
           "'ByteLevel' behind another one");
}

TEST(TokenizerJson, RefusesOtherKindsByName) {
  mentions(refusal([](Json& j) { j["model"]["type"] = "Unigram"; }), "model type 'Unigram'");
  mentions(refusal([](Json& j) { j["model"]["type"] = "WordPiece"; }), "model type 'WordPiece'");
  mentions(refusal([](Json& j) { j["model"]["dropout"] = 0.1; }), "dropout");
  mentions(refusal([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }), "'</w>'");
  mentions(refusal([](Json& j) { j["normalizer"] = {{"type", "Lowercase"}}; }), "'Lowercase'");
  mentions(refusal([](Json& j) { j["pre_tokenizer"] = {{"type", "Bert"}}; }), "'Bert'");
  mentions(refusal([](Json& j) { j["decoder"] = {{"type", "WordPiece"}}; }), "'WordPiece'");
  mentions(refusal([](Json& j) { j.erase("decoder"); }), "a missing decoder");
}

TEST(TokenizerJson, RefusesBrokenVocabularies) {
  mentions(refusal([](Json& j) { j["model"]["vocab"] = Json::object(); }), "is empty");
  mentions(refusal([](Json& j) { j["model"]["vocab"]["d"] = 0; }), "the same id 0");
  mentions(refusal([](Json& j) { j["model"]["vocab"]["d"] = -1; }), "token 'd'");
  mentions(refusal([](Json& j) { j["model"]["vocab"]["d"] = 1.5; }), "token 'd'");
  mentions(refusal([](Json& j) { j["model"]["vocab"]["d"] = 1LL << 40; }), "token 'd'");
  mentions(refusal([](Json& j) { j["model"]["vocab"][std::string(5000, 'd')] = 9; }), "5000 bytes");
  mentions(refusal([](Json& j) { j["model"]["unk_token"] = "?"; }), "unk_token '?'");
}

TEST(TokenizerJson, RefusesBrokenMerges) {
  mentions(refusal([](Json& j) { j["model"]["merges"][0] = "a d"; }), "merges[0]");
  mentions(refusal([](Json& j) { j["model"]["merges"][1] = "b c"; }), "'bc' is not in the");
  mentions(refusal([](Json& j) { j["model"]["merges"][1] = "abc"; }), "merges[1]");
  mentions(refusal([](Json& j) { j["model"]["merges"][1] = "a b c"; }), "merges[1]");
  mentions(refusal([](Json& j) { j["model"]["merges"][1] = {"a", 1}; }), "merges[1]");
  mentions(refusal([](Json& j) { j["model"]["merges"] = 3; }), "merges");
}

TEST(TokenizerJson, RefusesBrokenAddedTokens) {
  const auto added = [](Token id, const std::string& content) {
    return [=](Json& j) { j["added_tokens"] = {{{"id", id}, {"content", content}}}; };
  };
  mentions(refusal(added(0, "x")), "have the same id 0");
  mentions(refusal(added(7, "ab")), "two ids, 3 and 7");
  mentions(refusal(added(7, "")), "empty");
  mentions(refusal(added(-7, "x")), "'id'");
}

TEST(TokenizerOpen, SaysWhatIsMissing) {
  ModelFolder folder;
  mentions(failure_of([&] { folder.open(); }, Exit::no_input), "neither tokenizer.json nor");
  folder.write("tekken.json", std::string("{}"));
  mentions(failure_of([&] { folder.open(); }, Exit::no_input), "tekken.json is Mistral's own form");
  folder.write("tokenizer.model", std::string("IQ== 0\nIg== 1\nIw== 2\n"));
  mentions(failure_of([&] { folder.open(); }), "tokenizer.model is a vocabulary for tiktoken");
  folder.write("tokenizer.json", std::string("{\"model\": "));
  mentions(failure_of([&] { folder.open(); }), "tokenizer.json: not valid JSON");
  folder.write("tokenizer.json", std::string(R"({"model": {"vocab": {"a": 0, "a": 1}}})"));
  mentions(failure_of([&] { folder.open(); }), "key 'a' appears twice");
}

}  // namespace
}  // namespace starattn
