// SPDX-License-Identifier: Apache-2.0
#include "model/chat.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "model/chat_template.h"
#include "model/tokenizer_config.h"

namespace starattn {
namespace {

using Texts = std::vector<std::string>;

// How a family writes one turn: <open>role<head>text<close>.
struct Markup {
  const char* name;
  const char* begin;  // the BOS, which its templates write themselves; nullptr: they do not
  const char* open;
  const char* head;
  const char* close;
  const char* default_system;  // where the folder has no template; nullptr: no such turn
  const char* stops[2];        // the first one ends a turn
};

constexpr Markup kLlama3{"llama3",
                         "<|begin_of_text|>",
                         "<|start_header_id|>",
                         "<|end_header_id|>\n\n",
                         "<|eot_id|>",
                         nullptr,
                         {"<|eot_id|>", "<|eom_id|>"}};
constexpr Markup kQwen{"qwen",
                       nullptr,
                       "<|im_start|>",
                       "\n",
                       "<|im_end|>\n",
                       "You are a helpful assistant.",
                       {"<|im_end|>", nullptr}};

// Llama 3.1 and 3.2 write a system turn from several pieces, a date among them: this is what their
// templates write when nobody tells them the day.
constexpr const char* kLlama31Piece = "Cutting Knowledge Date";
constexpr const char* kLlama31System =
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

bool writes(const Texts& texts, std::string_view piece) {
  return std::ranges::any_of(
      texts, [&](const std::string& text) { return text.find(piece) != std::string::npos; });
}

bool knows(const Tokenizer& tokenizer, const Markup& family) {
  return tokenizer.find_token(family.open) >= 0 && tokenizer.find_token(family.stops[0]) >= 0;
}

std::string opening_of_turn(const Markup& family, const char* role) {
  return std::string(family.open) + role + family.head;
}

// The system turn of a conversation that brings none; empty where the template writes none.
std::string default_system_turn(const Markup& family, const Texts& texts) {
  const std::string opening = opening_of_turn(family, "system");
  if (texts.empty()) {
    return family.default_system ? opening + family.default_system + family.close : "";
  }
  if (writes(texts, kLlama31Piece)) return opening + kLlama31System + family.close;
  for (const std::string& text : texts) {
    const std::size_t end = text.find(family.stops[0]);
    if (text.starts_with(opening) && end != std::string::npos)
      return text.substr(0, end) + family.close;
  }
  return "";
}

// What the model is to go on from in its own turn: "<think>\n", or nothing. The generation prompt
// stands last in a template.
std::string opening_of_answer(const Markup& family, const Texts& texts) {
  const std::string opening = opening_of_turn(family, "assistant");
  for (auto text = texts.rbegin(); text != texts.rend(); ++text) {
    if (text->starts_with(opening)) return text->substr(opening.size());
  }
  return "";
}

ChatStyle style_of(const Markup& family, const Texts& texts, const Tokenizer& tokenizer) {
  std::string before = default_system_turn(family, texts) + opening_of_turn(family, "user");
  const bool lacks_begin =
      family.begin && tokenizer.prefix().empty() && tokenizer.find_token(family.begin) >= 0;
  if (lacks_begin) before = family.begin + before;

  ChatStyle style;
  style.name = family.name;
  const std::size_t tail = before.rfind("|>") + 2;
  style.opening = before.substr(0, tail);
  style.lead = before.substr(tail);
  style.closing =
      family.close + opening_of_turn(family, "assistant") + opening_of_answer(family, texts);
  for (const char* stop : family.stops) {
    if (stop && tokenizer.find_token(stop) >= 0) style.stops.push_back(tokenizer.find_token(stop));
  }
  return style;
}

// The text behind markup that may share its first token ("\n\n" and a line feed).
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
  if (name == "none") return {};
  const std::string chat_template = read_tokenizer_config(model_folder).chat_template;
  if (name == "auto" && chat_template.empty()) return {};
  const Texts texts = texts_of_template(chat_template);
  for (const Markup* family : {&kLlama3, &kQwen}) {
    if (name == "auto" && writes(texts, family->open) && knows(tokenizer, *family))
      return style_of(*family, texts, tokenizer);
    if (name != family->name) continue;
    if (knows(tokenizer, *family)) return style_of(*family, texts, tokenizer);
    fail(Exit::usage, "--chat {}: the tokenizer of {} has no tokens {} and {}", name, model_folder,
         family->open, family->stops[0]);
  }
  if (name != "auto")
    fail(Exit::usage, "--chat: expected auto, none, llama3 or qwen, got '{}'", name);
  fail(Exit::bad_data,
       "{}: its chat template writes neither Llama 3's {} nor Qwen's {}, or its tokenizer has no "
       "such token. Write the markup into the records yourself and pass --chat none "
       "--special-tokens parse, or pass --chat none for plain text",
       model_folder, kLlama3.open, kQwen.open);
}

std::vector<Token> wrap_context(const ChatStyle& style, const Tokenizer& tokenizer,
                                std::string_view text, SpecialTokens special) {
  std::vector<Token> tokens = tokenizer.prefix();
  append(tokens, tokenizer.encode(style.opening, SpecialTokens::parse));
  append(tokens, encode_behind(tokenizer, style.lead, text, special));
  return tokens;
}

std::vector<Token> wrap_query(const ChatStyle& style, const Tokenizer& tokenizer,
                              std::string_view text, SpecialTokens special) {
  std::vector<Token> tokens = tokenizer.encode(text, special);
  append(tokens, tokenizer.encode(style.closing, SpecialTokens::parse));
  return tokens;
}

std::string describe(const ChatStyle& style) {
  if (style.name == "none") return "none: context and query as they are";
  return fmt::format("{}: {} context, query {}", style.name,
                     to_line(Json(style.opening + style.lead)), to_line(Json(style.closing)));
}

}  // namespace starattn
