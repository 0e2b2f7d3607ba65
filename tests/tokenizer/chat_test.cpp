// SPDX-License-Identifier: Apache-2.0
// Expected texts are what templates like the models' own render for one user turn.
#include "tokenizer/chat.h"

#include <gtest/gtest.h>

#include "model_folder.h"

namespace starattn {
namespace {

const std::vector<std::string> kLlama3 = {"<|begin_of_text|>", "<|start_header_id|>",
                                          "<|end_header_id|>", "<|eot_id|>"};
const std::vector<std::string> kQwen = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

// Templates in short, each with what sets its model apart.
const std::string kLlama3Template =
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] }}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}";
const std::string kLlama31Template =
    "{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}"
    "{{- \"Cutting Knowledge Date: December 2023\\n\" }}" +
    kLlama3Template;
const std::string kTurn = "{{'<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n'}}";
const std::string kAnswer =
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

std::string with_system(const std::string& text) {
  return "{%- if tools %}{{- '<|im_start|>system\\n' }}{{- m.content }}{%- else %}"
         "{{- '<|im_start|>system\\n" +
         text + "<|im_end|>\\n' }}{%- endif %}" + kTurn + kAnswer;
}

const std::vector<std::string> kHarmony = {"<|start|>",   "<|message|>", "<|end|>",
                                           "<|channel|>", "<|return|>",  "<|call|>"};
const std::string kHarmonySystem =
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\n\nReasoning: low\n\n# Valid channels: analysis, commentary, final. "
    "Channel must be included for every message.<|end|>";

struct Chat {
  std::unique_ptr<Tokenizer> tokenizer;
  ChatStyle style;

  // Context and query as they reach the model, special tokens written out.
  std::string rendered(const std::string& context, const std::string& query) const {
    const auto context_tokens = wrap_context(style, *tokenizer, context, SpecialTokens::text);
    const auto query_tokens = wrap_query(style, *tokenizer, query, SpecialTokens::text);
    return tokenizer->decode(context_tokens, false) + "#" + tokenizer->decode(query_tokens, false);
  }
};

Chat chat_of(const std::string& name, const Json& tokenizer, const std::string& chat_template) {
  ModelFolder folder;
  folder.write("tokenizer.json", tokenizer);
  if (!chat_template.empty())
    folder.write("tokenizer_config.json", Json{{"chat_template", chat_template}});
  Chat chat{folder.open(), {}};
  chat.style = chat_style_from_name(name, folder.path(), *chat.tokenizer);
  return chat;
}

// "C" and "Q" in the markup of this model.
std::string rendered(const std::string& name, const std::vector<std::string>& special_tokens,
                     const std::string& chat_template) {
  return chat_of(name, byte_tokenizer(special_tokens), chat_template).rendered("C", "Q");
}

const std::string kLlama3Turns =
    "<|start_header_id|>user<|end_header_id|>\n\nC#\n\nQ<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n";
const std::string kQwenTurns = "<|im_start|>user\nC#\n\nQ<|im_end|>\n<|im_start|>assistant\n";
const std::string kLlama31Turns =
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: "
    "December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>" +
    kLlama3Turns;

std::string qwen_turns(const std::string& system) {
  return "<|im_start|>system\n" + system + "<|im_end|>\n" + kQwenTurns;
}

// Its template is a program with macros and today's date.
TEST(Chat, OfGptOssOpensTheFinalChannel) {
  const std::string expected = kHarmonySystem +
                               "<|start|>user<|message|>C#\n\nQ<|end|>"
                               "<|start|>assistant<|channel|>final<|message|>";
  const std::string chat_template =
      "{%- macro build_system_message() -%}{{- 'Today: ' + strftime_now('%Y') }}{%- endmacro -%}"
      "{{- \"<|start|>system<|message|>\" }}{{- build_system_message() }}{{- \"<|end|>\" }}"
      "{%- if add_generation_prompt -%}{{- \"<|start|>assistant\" }}{%- endif -%}";
  EXPECT_EQ(rendered("auto", kHarmony, chat_template), expected);
  EXPECT_EQ(rendered("harmony", kHarmony, ""), expected);
  const Chat chat = chat_of("auto", byte_tokenizer(kHarmony), chat_template);
  EXPECT_EQ(chat.style.stops, (std::vector<Token>{chat.tokenizer->find_token("<|return|>"),
                                                  chat.tokenizer->find_token("<|end|>")}));
}

TEST(Chat, IsThatOfTheTemplate) {
  EXPECT_EQ(rendered("auto", kLlama3, kLlama3Template), "<|begin_of_text|>" + kLlama3Turns);
  EXPECT_EQ(rendered("auto", kLlama3, kLlama31Template), kLlama31Turns);
  EXPECT_EQ(rendered("auto", kQwen, kTurn + kAnswer), kQwenTurns);  // Qwen3
  for (const char* system :
       {"You are a helpful assistant.",                                               // Qwen2
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", ""})  // Qwen2.5
    EXPECT_EQ(rendered("auto", kQwen, with_system(system)), qwen_turns(system));
  EXPECT_EQ(rendered("auto", kQwen, with_system("Put your answer within \\\\boxed{}.")),
            qwen_turns("Put your answer within \\boxed{}."));  // Qwen2.5-Math
}

// A template in JSON may hold line feeds where another has their escapes.
TEST(Chat, TakesLineFeedsForWhatTheyAre) {
  std::string raw = with_system("S");
  for (std::size_t at = 0; (at = raw.find("\\n", at)) != std::string::npos;)
    raw.replace(at, 2, "\n");
  EXPECT_EQ(rendered("auto", kQwen, raw), qwen_turns("S"));
}

// GLM-4.5's reads what is said with a macro.
TEST(Chat, OfGlmRunsItsMacro) {
  const std::string chat_template =
      "[gMASK]<sop>\n{%- macro visible_text(content) -%}\n    {%- if content is string -%}\n"
      "        {{- content }}\n    {%- else -%}\n        {%- for item in content -%}\n"
      "            {{- item.text }}\n        {%- endfor -%}\n    {%- endif -%}\n"
      "{%- endmacro -%}\n{% for m in messages %}\n{%- if m.role == 'user' -%}<|user|>\n"
      "{{ visible_text(m.content) }}\n{{- '/nothink' if (enable_thinking is defined and not "
      "enable_thinking and not visible_text(m.content).endswith(\"/nothink\")) else '' -}}\n"
      "{%- endif -%}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n    <|assistant|>"
      "{{- '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' "
      "-}}\n{%- endif -%}\n";
  const std::vector<std::string> tokens = {"[gMASK]", "<sop>", "<|user|>", "<|assistant|>"};
  EXPECT_EQ(rendered("auto", tokens, chat_template), "[gMASK]<sop><|user|>\nC#\n\nQ<|assistant|>");
}

// SmolLM3's template writes a date, and how it is to reason, in a system turn that nothing closes.
TEST(Chat, OfSmolLM3HasASystemTurnWithTheSameDateEveryDay) {
  const std::string chat_template =
      "{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}"
      "{%- set mode = '/think' if enable_thinking else '/no_think' -%}"
      "{{- '<|im_start|>system\\n' -}}"
      "{%- if messages[0].role == 'system' -%}{%- set system = messages[0].content -%}"
      "{%- set custom = system.replace('/no_think', '').replace('/think', '').rstrip() -%}"
      "{%- endif -%}{%- set today = strftime_now('%d %B %Y') -%}"
      "{{- 'Today: ' ~ today ~ '\\nMode: ' + mode + '\\n\\n' -}}"
      "{%- if custom -%}{{- custom + '\\n\\n' -}}{%- else -%}{{- 'You are Kim.\\n\\n' -}}{%- endif "
      "-%}"
      "{%- if xml_tools or python_tools -%}{{- 'Tools<|im_end|>\\n' -}}{%- endif -%}"
      "{%- for message in messages -%}{%- if message.role == 'user' -%}"
      "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
      "{%- elif message.role == 'assistant' -%}{% generation %}"
      "{{ '<|im_start|>assistant\\n' + message.content.lstrip('\\n') + '<|im_end|>\\n' }}"
      "{% endgeneration %}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}"
      "{{ '<|im_start|>assistant\\n' }}{%- if mode == '/no_think' -%}"
      "{{ '<think>\\n\\n</think>\\n' }}{%- endif -%}{%- endif -%}";
  EXPECT_EQ(
      rendered("auto", kQwen, chat_template),
      "<|im_start|>system\nToday: 01 January 2026\nMode: /think\n\nYou are Kim.\n\n" + kQwenTurns);
}

TEST(Chat, OpensTheAnswerAsTheTemplateDoes) {
  const std::string thinks =
      "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}";
  EXPECT_EQ(rendered("auto", kQwen, kTurn + thinks), kQwenTurns + "<think>\n");  // QwQ
  EXPECT_EQ(rendered("qwen", kQwen, kTurn + thinks), kQwenTurns + "<think>\n");
  const std::string may_think =
      kAnswer +
      "{%- if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}";
  EXPECT_EQ(rendered("auto", kQwen, kTurn + may_think), kQwenTurns);  // Qwen3
}

// Llama 3 tokens are left in the tokenizers of models that were trained with other markup.
TEST(Chat, IsNotThatOfTheTokenizerAlone) {
  std::vector<std::string> both = kLlama3;
  both.insert(both.end(), kQwen.begin(), kQwen.end());
  EXPECT_EQ(rendered("auto", both, kTurn + kAnswer), kQwenTurns);
  const std::string message =
      failure_of([] { rendered("auto", kLlama3, "{{ '<|User|>' + m.content }}"); });
  EXPECT_NE(message.find("--chat none"), std::string::npos) << message;
}

// The spaces are the template's, and the markup tokens or text as the tokenizer has it.
TEST(Chat, OfLlama2AndMistralIsInst) {
  const std::string with_spaces = "{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}";
  const std::string without = "{{- bos_token }}{{- \"[INST]\" + m.content + \"[/INST]\" }}";
  const std::string raw = "{{ bos_token }}[INST] {{ m.content }}[/INST]";
  EXPECT_EQ(rendered("auto", {"<s>"}, with_spaces), "<s>[INST] C#\n\nQ [/INST]");
  EXPECT_EQ(rendered("auto", {"<s>"}, without), "<s>[INST]C#\n\nQ[/INST]");
  EXPECT_EQ(rendered("auto", {"<s>"}, raw), "<s>[INST] C#\n\nQ[/INST]");
  EXPECT_EQ(rendered("llama2", {"<s>"}, ""), "<s>[INST] C#\n\nQ [/INST]");
  EXPECT_EQ(rendered("llama2", {}, ""), "[INST] C#\n\nQ [/INST]");
  const Json tokenizer = byte_tokenizer({"<s>", "[INST]", "[/INST]"});
  const Chat chat = chat_of("auto", tokenizer, with_spaces);
  EXPECT_EQ(wrap_context(chat.style, *chat.tokenizer, "", SpecialTokens::text),
            (std::vector<Token>{256, 257, ' '}));
  EXPECT_EQ(wrap_query(chat.style, *chat.tokenizer, "", SpecialTokens::text),
            (std::vector<Token>{'\n', '\n', ' ', 258}));
}

// tests/golden/tokenizer/chat.json, made by scripts/make_chat_goldens.py.
TEST(Chat, HasTheTokensOfTransformers) {
  const std::string golden = STARATTN_SOURCE_DIR "/tests/golden/tokenizer/";
  const Json cases = read_json_file(golden + "chat.json")["cases"];
  ASSERT_GE(cases.size(), 10U);
  for (const Json& c : cases) {
    SCOPED_TRACE(c["name"]);
    Json tokenizer = read_json_file(golden + c["tokenizer"].get<std::string>() + "/tokenizer.json");
    for (const Json& token : c["added_tokens"]) tokenizer["added_tokens"].push_back(token);
    tokenizer["post_processor"] = c["post_processor"];
    ModelFolder folder;
    folder.write("tokenizer.json", tokenizer);
    folder.write("tokenizer_config.json",
                 Json{{"bos_token", c["bos_token"]}, {"chat_template", c["chat_template"]}});
    Chat chat{folder.open(), {}};
    chat.style = chat_style_from_name("auto", folder.path(), *chat.tokenizer);
    chat.style.query_prefix = "";  // the turn of these cases is context + query
    auto tokens = wrap_context(chat.style, *chat.tokenizer, c["context"].get<std::string>(),
                               SpecialTokens::text);
    const auto query =
        wrap_query(chat.style, *chat.tokenizer, c["query"].get<std::string>(), SpecialTokens::text);
    tokens.insert(tokens.end(), query.begin(), query.end());
    EXPECT_EQ(tokens, c["ids"].get<std::vector<Token>>());
  }
}

// Of another family than ours: what the template writes, as it is run.
TEST(Chat, IsWhateverTheTemplateWrites) {
  const std::string phi =
      "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\n' + m.content + '<|end|>\n' }}"
      "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";
  const Chat chat = chat_of("auto", byte_tokenizer({"<|user|>", "<|end|>", "<|assistant|>"}), phi);
  EXPECT_EQ(chat.rendered("C", "Q"), "<|user|>\nC#\n\nQ<|end|>\n<|assistant|>\n");
  EXPECT_EQ(chat.style.opening, "<|user|>");
  EXPECT_EQ(chat.style.lead, "\n");
  EXPECT_EQ(chat.style.trail, "");
  EXPECT_EQ(chat.style.stops, std::vector<Token>{chat.tokenizer->find_token("<|end|>")});
}

TEST(Chat, WritesTheDefaultsOfATemplate) {
  const std::string pieces =
      "{%- set ns = namespace(s='You are Kim.') -%}{{- '<|im_start|>system\\n' ~ ns.s ~ "
      "'<|im_end|>\\n' -}}{%- for m in messages -%}{{- '<|im_start|>' ~ m.role ~ '\\n' ~ m.content "
      "~ "
      "'<|im_end|>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- "
      "'<|im_start|>assistant\\n' }}{{- '<think>\\n' -}}{%- endif -%}";
  EXPECT_EQ(rendered("auto", kQwen, pieces), qwen_turns("You are Kim.") + "<think>\n");
}

// Version 0.1.0 did not run templates; what it has begun must be told from what is written now.
TEST(Chat, KnowsWhatVersion010Wrote) {
  const auto markup_of_0_1_0 = [](const std::string& name, const std::string& chat_template) {
    ModelFolder folder;
    folder.write("tokenizer.json", byte_tokenizer(kQwen));
    folder.write("tokenizer_config.json", Json{{"chat_template", chat_template}});
    const auto style = chat_style_of_0_1_0(name, folder.path(), *folder.open());
    return style ? markup_of(*style) : "refused";
  };
  const auto markup = [](const std::string& name, const std::string& chat_template) {
    return markup_of(chat_of(name, byte_tokenizer(kQwen), chat_template).style);
  };
  const std::string loop = "{% for m in messages %}" + kTurn + "{% endfor %}" + kAnswer;
  EXPECT_EQ(markup_of_0_1_0("auto", loop), markup("auto", loop));
  EXPECT_EQ(markup_of_0_1_0("auto", kTurn), markup("auto", kTurn)) << "it cannot be run";
  EXPECT_EQ(markup_of_0_1_0("none", loop), markup("none", loop));
  EXPECT_EQ(markup_of_0_1_0("auto", ""), markup("auto", ""));
  const std::string system =
      "{%- set ns = namespace(s='You are Kim.') -%}{{- '<|im_start|>system\n' ~ ns.s ~ "
      "'<|im_end|>\n' -}}" +
      loop;
  EXPECT_NE(markup_of_0_1_0("auto", system), markup("auto", system));
  EXPECT_EQ(markup_of_0_1_0("auto", "{% for m in messages %}{{ m.content }}{% endfor %}"),
            "refused");
  EXPECT_EQ(markup("auto", loop).find("\\n\\n"), std::string::npos) << "without query prefix";
}

TEST(Chat, IsTheFirstOfAFamilyWithoutATemplate) {
  EXPECT_EQ(rendered("llama3", kLlama3, ""), "<|begin_of_text|>" + kLlama3Turns);
  EXPECT_EQ(rendered("qwen", kQwen, ""), qwen_turns("You are a helpful assistant."));
  EXPECT_EQ(rendered("auto", kQwen, ""), "C#Q");
}

TEST(Chat, WritesNothingOfItsOwnWithoutAStyle) {
  const Chat chat = chat_of("none", byte_tokenizer(kQwen), kTurn);
  EXPECT_EQ(chat.rendered(" C\n", " Q "), " C\n# Q ");
}

TEST(Chat, MarksUpWithTokensAndLeavesTheTextText) {
  const Chat chat = chat_of("auto", byte_tokenizer(kQwen), kTurn);
  const Token start = chat.tokenizer->find_token("<|im_start|>");
  const auto count = [&](SpecialTokens special) {
    const auto tokens = wrap_context(chat.style, *chat.tokenizer, "<|im_start|>", special);
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
  const Chat chat = chat_of("llama3", json, "");
  EXPECT_EQ(
      wrap_context(chat.style, *chat.tokenizer, "\nC", SpecialTokens::text),
      chat.tokenizer->encode("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n\nC",
                             SpecialTokens::parse));
}

TEST(Chat, PutsThePrefixInFrontOnce) {
  ModelFolder folder;
  folder.write("tokenizer.json", byte_tokenizer(kLlama3));
  folder.write("tokenizer_config.json", Json{{"tokenizer_class", "LlamaTokenizer"},
                                             {"add_bos_token", true},
                                             {"bos_token", "<|begin_of_text|>"}});
  const auto tokenizer = folder.open();
  for (const char* name : {"none", "llama3"}) {
    const ChatStyle style = chat_style_from_name(name, folder.path(), *tokenizer);
    const auto tokens = wrap_context(style, *tokenizer, "C", SpecialTokens::text);
    EXPECT_EQ(std::count(tokens.begin(), tokens.end(), tokenizer->prefix()[0]), 1);
    EXPECT_EQ(tokens[0], tokenizer->prefix()[0]);
  }
}

TEST(Chat, SetsTheQueryApart) {
  Chat chat = chat_of("auto", byte_tokenizer(kQwen), kTurn);
  EXPECT_EQ(chat.style.query_prefix, "\n\n");
  chat.style.query_prefix = "\nQuestion: <|im_end|>";
  EXPECT_EQ(chat.rendered("C", "Q"),
            "<|im_start|>user\nC#\nQuestion: <|im_end|>Q<|im_end|>\n<|im_start|>assistant\n");
  const auto tokens = wrap_query(chat.style, *chat.tokenizer, "Q", SpecialTokens::text);
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), chat.tokenizer->find_token("<|im_end|>")), 1);
  EXPECT_EQ(chat_of("none", byte_tokenizer(kQwen), kTurn).style.query_prefix, "");
}

TEST(Chat, NamesTheByteOfTheTextNotOfTheMarkup) {
  const Chat chat = chat_of("qwen", byte_tokenizer(kQwen), "");
  const std::string message = failure_of([&] { chat.rendered("ab\xff", "Q"); });
  EXPECT_NE(message.find("byte 2 of 3"), std::string::npos) << message;
}

TEST(Chat, FindsTheTemplateWhereverItIs) {
  ModelFolder folder;
  folder.write("tokenizer.json", byte_tokenizer(kQwen));
  folder.write("tokenizer_config.json",
               Json{{"chat_template",
                     {{{"name", "tools"}, {"template", "{{ x }}"}},
                      {{"name", "default"}, {"template", with_system("S")}}}}});
  const auto opening = [&] {
    return chat_style_from_name("auto", folder.path(), *folder.open()).opening;
  };
  EXPECT_EQ(opening(), "<|im_start|>system\nS<|im_end|>\n<|im_start|>");
  folder.write("chat_template.jinja", kTurn);
  EXPECT_EQ(opening(), "<|im_start|>");
}

TEST(Chat, RefusesWhatItCannotWrap) {
  const std::string unknown = failure_of([] { rendered("auto", {"<s>"}, kTurn); });
  EXPECT_NE(unknown.find("--chat none"), std::string::npos) << unknown;
  const std::string foreign = failure_of([] { rendered("llama3", kQwen, ""); }, Exit::usage);
  EXPECT_NE(foreign.find("<|start_header_id|>"), std::string::npos) << foreign;
  EXPECT_NE(failure_of([] { rendered("gemma", kQwen, ""); }, Exit::usage), "");
}

TEST(Chat, StopsAtTheEndOfTheTurn) {
  const Chat llama3 = chat_of("llama3", byte_tokenizer(kLlama3), "");
  EXPECT_EQ(llama3.style.stops, std::vector<Token>{llama3.tokenizer->find_token("<|eot_id|>")});
  const Chat qwen = chat_of("qwen", byte_tokenizer(kQwen), "");
  EXPECT_EQ(qwen.style.stops, std::vector<Token>{qwen.tokenizer->find_token("<|im_end|>")});
  EXPECT_TRUE(chat_of("none", byte_tokenizer(kQwen), "").style.stops.empty());
}

TEST(Chat, SaysInALineAllThatItWrites) {
  EXPECT_EQ(describe(chat_of("none", byte_tokenizer(kQwen), "").style),
            "none: context and query as they are");
  EXPECT_EQ(describe(chat_of("auto", byte_tokenizer(kQwen), kTurn).style),
            "qwen: \"<|im_start|>user\\n\" context, \"\\n\\n\" query "
            "\"<|im_end|>\\n<|im_start|>assistant\\n\"");
  ChatStyle plain;
  plain.query_prefix = "\n";
  EXPECT_EQ(describe(plain), "none: context, \"\\n\" query");
}

}  // namespace
}  // namespace starattn
