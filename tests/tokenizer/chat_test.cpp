// SPDX-License-Identifier: Apache-2.0
// Expected texts are what the models' own templates render for one user turn.
#include "model/chat.h"

#include <gtest/gtest.h>

#include "model_folder.h"

namespace starattn {
namespace {

const std::vector<std::string> kLlama3 = {"<|begin_of_text|>", "<|start_header_id|>",
                                          "<|end_header_id|>", "<|eot_id|>"};
const std::vector<std::string> kQwen = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

// Context and query as they reach the model, special tokens written out.
std::string rendered(ChatStyle style, const Tokenizer& tokenizer, const std::string& context,
                     const std::string& query) {
  return tokenizer.decode(wrap_context(style, tokenizer, context, SpecialTokens::text), false) +
         "#" + tokenizer.decode(wrap_query(style, tokenizer, query, SpecialTokens::text), false);
}

ChatStyle style_of(const std::string& name, const std::vector<std::string>& special_tokens,
                   const std::string& chat_template) {
  ModelFolder folder;
  folder.write("tokenizer.json", byte_tokenizer(special_tokens));
  if (!chat_template.empty()) {
    folder.write("tokenizer_config.json", Json{{"chat_template", chat_template}});
  }
  return chat_style_from_name(name, folder.path(), *folder.open());
}

TEST(Chat, RendersLlama3) {
  const auto tokenizer = open_tokenizer(byte_tokenizer(kLlama3));
  EXPECT_EQ(rendered(ChatStyle::llama3, *tokenizer, "C", "Q"),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nC#Q<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(
      rendered(ChatStyle::llama31, *tokenizer, "C", "Q"),
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: "
      "December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user"
      "<|end_header_id|>\n\nC#Q<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(Chat, RendersQwen) {
  const auto tokenizer = open_tokenizer(byte_tokenizer(kQwen));
  const std::string turns = "<|im_start|>user\nC#Q<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(rendered(ChatStyle::qwen, *tokenizer, "C", "Q"),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + turns);
  EXPECT_EQ(rendered(ChatStyle::qwen25, *tokenizer, "C", "Q"),
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
            "assistant.<|im_end|>\n" +
                turns);
  EXPECT_EQ(rendered(ChatStyle::qwen3, *tokenizer, "C", "Q"), turns);
}

TEST(Chat, WritesNothingOfItsOwnWithoutAStyle) {
  const auto tokenizer = open_tokenizer(byte_tokenizer(kQwen));
  EXPECT_EQ(rendered(ChatStyle::none, *tokenizer, " C\n", " Q "), " C\n# Q ");
}

TEST(Chat, MarksUpWithTokensAndLeavesTheTextText) {
  const auto tokenizer = open_tokenizer(byte_tokenizer(kQwen));
  const Token start = tokenizer->find_token("<|im_start|>");
  const auto count = [&](SpecialTokens special) {
    const auto tokens = wrap_context(ChatStyle::qwen3, *tokenizer, "<|im_start|>", special);
    return std::count(tokens.begin(), tokens.end(), start);
  };
  EXPECT_EQ(count(SpecialTokens::text), 1);
  EXPECT_EQ(count(SpecialTokens::parse), 2);
}

// "\n\n" in front of the context is one token with the line feeds that the context begins with.
TEST(Chat, TokenisesTheSeamOfMarkupAndTextAsOne) {
  Json json = byte_tokenizer(kLlama3);
  json["model"]["vocab"]["\xc4\x8a\xc4\x8a"] = 300;
  json["model"]["vocab"]["\xc4\x8a\xc4\x8a\xc4\x8a"] = 301;
  json["model"]["merges"] = {"\xc4\x8a \xc4\x8a", "\xc4\x8a\xc4\x8a \xc4\x8a"};
  const auto tokenizer = open_tokenizer(json);
  EXPECT_EQ(wrap_context(ChatStyle::llama3, *tokenizer, "\nC", SpecialTokens::text),
            tokenizer->encode("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n\nC",
                              SpecialTokens::parse));
}

TEST(Chat, PutsThePrefixInFrontOnce) {
  ModelFolder folder;
  folder.write("tokenizer.json", byte_tokenizer(kLlama3));
  folder.write("tokenizer_config.json",
               Json{{"add_bos_token", true}, {"bos_token", "<|begin_of_text|>"}});
  const auto tokenizer = folder.open();
  for (const ChatStyle style : {ChatStyle::none, ChatStyle::llama3}) {
    const auto tokens = wrap_context(style, *tokenizer, "C", SpecialTokens::text);
    EXPECT_EQ(std::count(tokens.begin(), tokens.end(), tokenizer->prefix()[0]), 1);
    EXPECT_EQ(tokens[0], tokenizer->prefix()[0]);
  }
}

TEST(Chat, NamesTheByteOfTheTextNotOfTheMarkup) {
  const auto tokenizer = open_tokenizer(byte_tokenizer(kQwen));
  const std::string message =
      failure_of([&] { wrap_context(ChatStyle::qwen, *tokenizer, "ab\xff", SpecialTokens::text); });
  EXPECT_NE(message.find("byte 2 of 3"), std::string::npos) << message;
}

TEST(Chat, ChoosesTheStyleByTemplateAndTokens) {
  EXPECT_EQ(style_of("none", kQwen, "{{ x }}"), ChatStyle::none);
  EXPECT_EQ(style_of("auto", kQwen, ""), ChatStyle::none);
  EXPECT_EQ(style_of("auto", kLlama3, "{{ x }}"), ChatStyle::llama3);
  EXPECT_EQ(style_of("auto", kLlama3, "Cutting Knowledge Date: "), ChatStyle::llama31);
  EXPECT_EQ(style_of("auto", kQwen, "You are a helpful assistant."), ChatStyle::qwen);
  EXPECT_EQ(style_of("auto", kQwen, "You are Qwen, created by Alibaba Cloud."), ChatStyle::qwen25);
  EXPECT_EQ(style_of("auto", kQwen, "{{ x }}"), ChatStyle::qwen3);
  EXPECT_EQ(style_of("qwen", kQwen, ""), ChatStyle::qwen);
  EXPECT_EQ(style_of("llama3", kLlama3, ""), ChatStyle::llama3);
}

TEST(Chat, FindsTheTemplateWhereverItIs) {
  ModelFolder folder;
  folder.write("tokenizer.json", byte_tokenizer(kQwen));
  folder.write("tokenizer_config.json",
               Json{{"chat_template",
                     {{{"name", "tools"}, {"template", "{{ x }}"}},
                      {{"name", "default"}, {"template", "You are a helpful assistant."}}}}});
  EXPECT_EQ(chat_style_from_name("auto", folder.path(), *folder.open()), ChatStyle::qwen);
  folder.write("chat_template.jinja", std::string("{{ x }}"));
  EXPECT_EQ(chat_style_from_name("auto", folder.path(), *folder.open()), ChatStyle::qwen3);
}

TEST(Chat, RefusesWhatItCannotWrap) {
  const std::string unknown = failure_of([] { style_of("auto", {"<s>"}, "{{ x }}"); });
  EXPECT_NE(unknown.find("--chat none"), std::string::npos) << unknown;
  const std::string foreign = failure_of([] { style_of("llama3", kQwen, ""); }, Exit::usage);
  EXPECT_NE(foreign.find("<|start_header_id|>"), std::string::npos) << foreign;
  EXPECT_NE(failure_of([] { style_of("gemma", kQwen, ""); }, Exit::usage), "");
}

TEST(Chat, StopsAtTheEndOfTheTurn) {
  const auto llama3 = open_tokenizer(byte_tokenizer(kLlama3));
  EXPECT_EQ(stop_tokens(ChatStyle::llama31, *llama3),
            std::vector<Token>{llama3->find_token("<|eot_id|>")});
  const auto qwen = open_tokenizer(byte_tokenizer(kQwen));
  EXPECT_EQ(stop_tokens(ChatStyle::qwen, *qwen),
            std::vector<Token>{qwen->find_token("<|im_end|>")});
  EXPECT_TRUE(stop_tokens(ChatStyle::none, *qwen).empty());
}

}  // namespace
}  // namespace starattn
