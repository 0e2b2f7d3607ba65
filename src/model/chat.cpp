// SPDX-License-Identifier: Apache-2.0
#include "model/chat.h"

#include "base/error.h"
#include "base/text.h"
#include "model/tokenizer_config.h"

namespace starattn {
namespace {

constexpr const char* kLlama31System =
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
constexpr const char* kQwenSystem = "You are a helpful assistant.";
constexpr const char* kQwen25System =
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

// How a family writes one turn: <open>role<head>text<close>.
struct Markup {
  const char* name;
  const char* open;
  const char* head;
  const char* close;
  std::vector<const char*> stops;
};

const Markup& llama3_family() {
  static const Markup kMarkup{"llama3",
                              "<|start_header_id|>",
                              "<|end_header_id|>\n\n",
                              "<|eot_id|>",
                              {"<|eot_id|>", "<|eom_id|>"}};
  return kMarkup;
}

const Markup& qwen_family() {
  static const Markup kMarkup{"qwen", "<|im_start|>", "\n", "<|im_end|>\n", {"<|im_end|>"}};
  return kMarkup;
}

// nullptr for none
const Markup* family_of(ChatStyle style) {
  switch (style) {
    case ChatStyle::none:
      return nullptr;
    case ChatStyle::llama3:
    case ChatStyle::llama31:
      return &llama3_family();
    case ChatStyle::qwen:
    case ChatStyle::qwen25:
    case ChatStyle::qwen3:
      return &qwen_family();
  }
  return nullptr;
}

std::string system_text_of(ChatStyle style) {
  if (style == ChatStyle::llama31) return kLlama31System;
  if (style == ChatStyle::qwen) return kQwenSystem;
  if (style == ChatStyle::qwen25) return kQwen25System;
  return "";
}

bool knows_markup(const Tokenizer& tokenizer, const Markup& family) {
  return tokenizer.find_token(family.open) >= 0 && tokenizer.find_token(family.stops[0]) >= 0;
}

// Which member of the family writes this template.
ChatStyle style_of_template(const Markup& family, const std::string& text) {
  const auto has = [&](std::string_view words) { return text.find(words) != std::string::npos; };
  if (&family == &llama3_family()) {
    return has("Cutting Knowledge Date") ? ChatStyle::llama31 : ChatStyle::llama3;
  }
  if (has("created by Alibaba Cloud")) return ChatStyle::qwen25;
  return text.empty() || has(kQwenSystem) ? ChatStyle::qwen : ChatStyle::qwen3;
}

// The text with markup in front of it, which may share its first token ("\n\n" and a line feed).
std::vector<Token> encode_behind(const Tokenizer& tokenizer, const std::string& markup,
                                 std::string_view text, SpecialTokens special) {
  std::size_t bad = 0;
  if (!is_utf8(text, &bad)) {  // here, because the offset must not count the markup
    fail(Exit::bad_data, "the text is not UTF-8: byte {} of {}", bad, text.size());
  }
  return tokenizer.encode(markup + std::string(text), special);
}

void append(std::vector<Token>& tokens, const std::vector<Token>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

}  // namespace

ChatStyle chat_style_from_name(std::string_view name, const std::string& model_folder,
                               const Tokenizer& tokenizer) {
  if (name == "none") return ChatStyle::none;
  if (name != "auto" && name != "llama3" && name != "qwen") {
    fail(Exit::usage, "--chat: expected auto, none, llama3 or qwen, got '{}'", name);
  }
  const std::string text = read_tokenizer_config(model_folder).chat_template;
  if (name == "auto" && text.empty()) return ChatStyle::none;
  for (const Markup* family : {&llama3_family(), &qwen_family()}) {
    if (name != "auto" && name != family->name) continue;
    if (knows_markup(tokenizer, *family)) return style_of_template(*family, text);
    if (name != "auto") {
      fail(Exit::usage, "--chat {}: the tokenizer of {} has no tokens {} and {}", name,
           model_folder, family->open, family->stops[0]);
    }
  }
  fail(Exit::bad_data,
       "{}: its chat template is neither Llama 3's nor Qwen's. Write the markup into the records "
       "yourself and pass --chat none --special-tokens parse, or pass --chat none for plain text",
       model_folder);
}

std::vector<Token> wrap_context(ChatStyle style, const Tokenizer& tokenizer, std::string_view text,
                                SpecialTokens special) {
  std::vector<Token> tokens = tokenizer.prefix();
  const Markup* family = family_of(style);
  if (!family) {
    append(tokens, tokenizer.encode(text, special));
    return tokens;
  }
  // Llama 3's templates write the BOS themselves.
  const Token begin = tokenizer.find_token("<|begin_of_text|>");
  if (family == &llama3_family() && tokens.empty() && begin >= 0) tokens.push_back(begin);

  std::string markup;
  if (const std::string system = system_text_of(style); !system.empty()) {
    markup = std::string(family->open) + "system" + family->head + system + family->close;
  }
  // Up to the last special token; what follows it is encoded together with the text.
  markup += std::string(family->open) + "user" + family->head;
  const std::size_t tail = markup.rfind("|>") + 2;
  append(tokens, tokenizer.encode(markup.substr(0, tail), SpecialTokens::parse));
  append(tokens, encode_behind(tokenizer, markup.substr(tail), text, special));
  return tokens;
}

std::vector<Token> wrap_query(ChatStyle style, const Tokenizer& tokenizer, std::string_view text,
                              SpecialTokens special) {
  std::vector<Token> tokens = tokenizer.encode(text, special);
  if (const Markup* family = family_of(style)) {
    const std::string markup =
        std::string(family->close) + family->open + "assistant" + family->head;
    append(tokens, tokenizer.encode(markup, SpecialTokens::parse));
  }
  return tokens;
}

std::vector<Token> stop_tokens(ChatStyle style, const Tokenizer& tokenizer) {
  std::vector<Token> tokens;
  const Markup* family = family_of(style);
  if (!family) return tokens;
  for (const char* stop : family->stops) {
    if (tokenizer.find_token(stop) >= 0) tokens.push_back(tokenizer.find_token(stop));
  }
  return tokens;
}

}  // namespace starattn
