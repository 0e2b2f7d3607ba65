// SPDX-License-Identifier: Apache-2.0
// Expected texts are what transformers' apply_chat_template writes for these templates.
#include "tokenizer/conversation.h"

#include <gtest/gtest.h>

#include "model_folder.h"
#include "tokenizer/jinja.h"

namespace starattn {
namespace {

const std::vector<std::string> kQwen = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
const std::vector<std::string> kLlama3 = {"<|begin_of_text|>", "<|start_header_id|>",
                                          "<|end_header_id|>", "<|eot_id|>"};
const std::string kQwenTemplate =
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + "
    "'<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if m.role != 'system' %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
// Mistral's: no roles but turns, in which the user's and the model's must alternate.
const std::string kInstTemplate =
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}"
    "{% endfor %}";

using Turn = std::pair<std::string, std::string>;  // role and text

struct Chat {
  std::unique_ptr<Tokenizer> tokenizer;
  ChatStyle style;

  // As they reach the model, special tokens written out: context#question.
  std::string written(const std::vector<Turn>& before, const std::string& context,
                      const std::string& question) const {
    std::vector<std::string> roles;
    std::vector<std::string_view> texts;
    for (const auto& [role, text] : before) {
      roles.push_back(role);
      texts.emplace_back(text);
    }
    roles.emplace_back("user");
    const auto around = markup_around(style, *tokenizer, roles);
    return tokenizer->decode(wrap_turns(around, *tokenizer, texts, context, SpecialTokens::text),
                             false) +
           "#" +
           tokenizer->decode(
               wrap_question(around, *tokenizer, !context.empty(), question, SpecialTokens::text),
               false);
  }
};

Chat chat_of(const std::string& name, const std::vector<std::string>& special,
             const std::string& chat_template) {
  ModelFolder folder;
  folder.write("tokenizer.json", byte_tokenizer(special));
  if (!chat_template.empty()) {
    folder.write(
        "tokenizer_config.json",
        Json{{"chat_template", chat_template}, {"bos_token", "<s>"}, {"eos_token", "</s>"}});
  }
  Chat chat{folder.open(), {}};
  chat.style = chat_style_from_name(name, folder.path(), *chat.tokenizer);
  return chat;
}

TEST(Conversation, IsWrittenAsTheTemplateWritesIt) {
  const Chat chat = chat_of("auto", kQwen, kQwenTemplate);
  const std::string end = "<|im_end|>\n<|im_start|>assistant\n";
  const std::string brief = "<|im_start|>system\nBe brief.<|im_end|>\n";
  EXPECT_EQ(chat.written({}, "C", "\n\nQ"), brief + "<|im_start|>user\nC#\n\nQ" + end);
  // What stands behind the last special token goes with the text that follows it.
  EXPECT_EQ(chat.written({}, "", "Q"), brief + "<|im_start|>#user\nQ" + end);
  EXPECT_EQ(chat.written({{"system", "S"}}, "", "Q"),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>#user\nQ" + end);
  EXPECT_EQ(chat.written({{"user", "U"}, {"assistant", "A"}}, "C", " Q"),
            brief +
                "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
                "<|im_start|>user\nC# Q" +
                end);
}

TEST(Conversation, OfOneTurnIsThatOfAnyDocument) {
  for (const auto& [special, source] :
       {std::pair(kQwen, kQwenTemplate), std::pair(kQwen, kInstTemplate)}) {
    const Chat chat = chat_of("auto", special, source);
    const auto around = markup_around(chat.style, *chat.tokenizer, {"user"});
    EXPECT_EQ(wrap_turns(around, *chat.tokenizer, {}, "C", SpecialTokens::text),
              wrap_context(chat.style, *chat.tokenizer, "C", SpecialTokens::text));
    EXPECT_EQ(wrap_question(around, *chat.tokenizer, true, "\n\nQ", SpecialTokens::text),
              wrap_query(chat.style, *chat.tokenizer, "Q", SpecialTokens::text));
  }
}

TEST(Conversation, IsThatOfTheFamilyWithoutATemplate) {
  EXPECT_EQ(
      chat_of("qwen", kQwen, "")
          .written({{"system", "S"}, {"user", "U"}, {"assistant", "A"}}, "", "Q"),
      "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
      "A<|im_end|>\n<|im_start|>#user\nQ<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat_of("llama3", kLlama3, "").written({{"user", "U"}, {"assistant", "A"}}, "C", "Q"),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nC#Q<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(Conversation, HasBlankLinesWithoutMarkup) {
  const Chat chat = chat_of("none", kQwen, "");
  EXPECT_EQ(chat.written({{"system", "S"}}, "", "Q"), "S#\n\nQ");
  EXPECT_EQ(chat.written({{"system", "S"}}, "C", " Q"), "S\n\nC# Q");
  EXPECT_EQ(chat.written({}, "C", "Q"), "C#Q");
}

TEST(Conversation, IsRefusedWhereThereIsNoMarkupForIt) {
  const Chat inst = chat_of("auto", kQwen, kInstTemplate);
  // Nothing of this is a special token there.
  EXPECT_EQ(inst.written({{"user", "U"}, {"assistant", "A"}}, "", "Q"),
            "<s>[INST] U [/INST]A#</s>[INST] Q [/INST]");
  const std::string failure = failure_of([&] { inst.written({{"system", "S"}}, "", "Q"); });
  EXPECT_NE(failure.find("system, user"), std::string::npos) << failure;
  EXPECT_NE(failure.find("roles must alternate"), std::string::npos) << failure;
  const Chat alone = chat_of("llama2", {"<s>", "</s>"}, "");
  EXPECT_NE(failure_of([&] {
              alone.written({{"user", "U"}, {"assistant", "A"}}, "", "Q");
            }).find("could not be run"),
            std::string::npos);
}

TEST(Conversation, LetsNoTextBecomeMarkup) {
  const Chat chat = chat_of("auto", kQwen, kQwenTemplate);
  const auto around = markup_around(chat.style, *chat.tokenizer, {"user", "assistant", "user"});
  const auto count = [&](std::string_view text, SpecialTokens special) {
    const auto tokens = wrap_turns(around, *chat.tokenizer, {text, "A"}, "C", special);
    return std::count(tokens.begin(), tokens.end(), chat.tokenizer->find_token("<|im_start|>"));
  };
  EXPECT_EQ(count("U", SpecialTokens::text), 4);
  EXPECT_EQ(count("<|im_start|>", SpecialTokens::text), 4);
  EXPECT_EQ(count("<|im_start|>", SpecialTokens::parse), 5);
}

}  // namespace
}  // namespace starattn
