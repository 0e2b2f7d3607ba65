// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/chat.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "tokenizer/chat_family.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/conversation.h"
#include "tokenizer/jinja.h"
#include "tokenizer/tokenizer_config.h"

namespace starattn {
namespace {

using Texts = std::vector<std::string>;

constexpr const ChatFamily* kFamilies[] = {&kLlama3, &kQwen, &kHarmony};

constexpr std::string_view kInst = "[INST]";
constexpr std::string_view kInstEnd = "[/INST]";

// Llama 3.1 and 3.2 write a system turn from several pieces, a date among them: this is what their
// templates write when nobody tells them the day.
constexpr const char* kLlama31Piece = "Cutting Knowledge Date";
constexpr const char* kLlama31System =
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

constexpr const char* kBlankLine = "\n\n";

bool writes(const Texts& texts, std::string_view piece) {
  return std::ranges::any_of(
      texts, [&](const std::string& text) { return text.find(piece) != std::string::npos; });
}

bool knows(const Tokenizer& tokenizer, const ChatFamily& family) {
  return tokenizer.find_token(family.open) >= 0 && tokenizer.find_token(family.stops[0]) >= 0;
}

// The system turn of a conversation that brings none; empty where the template writes none.
std::string default_system_turn(const ChatFamily& family, const Texts& texts) {
  const std::string opening = family.opening_of_turn("system");
  if (texts.empty() || family.answer) {
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

// The opening of the model's own turn, and what it is to go on from there: "<think>\n", or nothing.
// The generation prompt stands last in a template.
std::string opening_of_answer(const ChatFamily& family, const Texts& texts) {
  if (family.answer) return family.answer;
  const std::string opening = family.opening_of_turn("assistant");
  for (auto text = texts.rbegin(); text != texts.rend(); ++text) {
    if (text->starts_with(opening)) return *text;
  }
  return opening;
}

ChatStyle style_of_family(const ChatFamily& family, const Texts& texts,
                          const Tokenizer& tokenizer) {
  std::string before = default_system_turn(family, texts) + family.opening_of_turn("user");
  before = begin_where_due(family.begin, tokenizer) + before;

  ChatStyle style;
  style.name = family.name;
  const std::size_t tail = before.rfind("|>") + 2;
  style.opening = before.substr(0, tail);
  style.lead = before.substr(tail);
  style.query_prefix = kBlankLine;
  style.closing = family.close + opening_of_answer(family, texts);
  for (const char* stop : family.stops) {
    if (stop && tokenizer.find_token(stop) >= 0) style.stops.push_back(tokenizer.find_token(stop));
  }
  return style;
}

// The markup as the template writes it, with spaces or without.
std::string spaced(std::string_view markup, const Texts& texts, const char* without_template) {
  for (const std::string& text : texts) {
    const std::size_t first = text.find_first_not_of(' ');
    if (first == std::string::npos) continue;
    if (text.substr(first, text.find_last_not_of(' ') + 1 - first) == markup) return text;
  }
  return without_template;
}

ChatStyle style_of_llama2(const Texts& texts, const Tokenizer& tokenizer) {
  const std::string before = spaced(kInst, texts, "[INST] ");
  const std::string behind = spaced(kInstEnd, texts, " [/INST]");
  const Token inst = tokenizer.find_token(kInst);
  const bool is_token = inst >= 0 && tokenizer.is_special(inst);
  const std::size_t head = is_token ? before.find(']') + 1 : 0;
  const std::size_t tail = is_token ? behind.find('[') : behind.size();

  ChatStyle style;
  style.name = kLlama2;
  style.opening = begin_where_due(begin_of_family(kLlama2), tokenizer) + before.substr(0, head);
  style.lead = before.substr(head);
  style.query_prefix = kBlankLine;
  style.trail = behind.substr(0, tail);
  style.closing = behind.substr(tail);
  return style;
}

// What a template writes before and behind the text of one user turn, the answer's opening
// included.
struct Turn {
  std::string before;
  std::string behind;
};

// family: whose BOS and stops are known; nullptr: another one's.
ChatStyle style_of_turn(const Turn& turn, const ChatFamily* family,
                        const ChatTemplate& chat_template, const Tokenizer& tokenizer) {
  ChatStyle style;
  style.name = family ? family->name : writes({turn.before}, kInst) ? kLlama2 : "template";
  style.chat_template = chat_template;
  const std::string before = as_beginning(turn.before, begin_of_family(style.name), tokenizer);
  const std::size_t tail = end_of_markup(before, tokenizer);
  style.opening = before.substr(0, tail);
  style.lead = before.substr(tail);
  style.query_prefix = kBlankLine;
  const auto [begin, n] = first_markup(turn.behind, tokenizer);
  style.trail = turn.behind.substr(0, begin);
  style.closing = turn.behind.substr(begin);

  // The model ends its own turn as a user's turn ends.
  std::vector<std::string> stops;
  if (family) {
    for (const char* stop : family->stops) stops.emplace_back(stop ? stop : "");
  } else if (style.name != kLlama2) {
    stops = {chat_template.eos_token, turn.behind.substr(begin, n)};
  }
  for (const std::string& stop : stops) {
    const Token token = tokenizer.find_token(stop);
    if (!stop.empty() && token >= 0 && std::ranges::count(style.stops, token) == 0)
      style.stops.push_back(token);
  }
  return style;
}

// The markup of a family that is named, or whose markup stands in a template's texts. None where
// neither says which.
std::optional<ChatStyle> style_without_running(std::string_view name,
                                               const std::string& model_folder, const Texts& texts,
                                               const Tokenizer& tokenizer) {
  for (const ChatFamily* family : kFamilies) {
    const bool is_named = name == family->name;
    if (!is_named && !(name == "auto" && writes(texts, family->open))) continue;
    if (knows(tokenizer, *family)) return style_of_family(*family, texts, tokenizer);
    if (!is_named) continue;
    fail(Exit::usage, "--chat {}: the tokenizer of {} has no tokens {} and {}", name, model_folder,
         family->open, family->stops[0]);
  }
  if (name == kLlama2 || (name == "auto" && writes(texts, kInst)))
    return style_of_llama2(texts, tokenizer);
  return std::nullopt;
}

// Of a template that could not be run: what it may write and we do not, sentences and <think>.
void warn_of_what_is_left_out(const std::string& folder, const std::string& why, const Texts& texts,
                              const ChatStyle& style) {
  const std::string written = style.opening + style.lead + style.trail + style.closing;
  std::string left_out;
  for (const std::string& text : texts) {
    const bool is_sentence = text.find(' ', 1) != std::string::npos && text.size() >= 8;
    const bool thinks = text.find("<think>") != std::string::npos;
    if ((!is_sentence && !thinks) || writes({written}, text) || left_out.size() > 200) continue;
    left_out += (left_out.empty() ? "" : ", ") + to_line(Json(text.substr(0, 120)));
  }
  log::warn(
      "{}: its chat template could not be run ({}); the markup is that of {} models{}{}. Compare "
      "with transformers' apply_chat_template",
      folder, why, style.name,
      left_out.empty() ? "" : ", without what else stands in the template and may belong there: ",
      left_out);
}

// before and behind: markup that may share a token with the text ("\n\n" and a line feed).
std::vector<Token> encode_between(const Tokenizer& tokenizer, const std::string& before,
                                  std::string_view text, const std::string& behind,
                                  SpecialTokens special) {
  std::size_t bad = 0;
  if (!is_utf8(text, &bad)) {  // here, because the offset must not count the markup
    fail(Exit::bad_data, "the text is not UTF-8: byte {} of {}", bad, text.size());
  }
  return tokenizer.encode(before + std::string(text) + behind, special);
}

void append(std::vector<Token>& tokens, const std::vector<Token>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

bool has_thinking_switch(const TokenizerConfig& config) {
  return config.chat_template.find("enable_thinking") != std::string::npos;
}

}  // namespace

ChatStyle chat_style_from_name(std::string_view name, const std::string& model_folder,
                               const Tokenizer& tokenizer, bool may_think) {
  if (name == "none" && may_think) return {};
  const TokenizerConfig config = read_tokenizer_config(model_folder);
  if (!may_think && (name == "none" || !has_thinking_switch(config))) {
    fail(Exit::usage,
         "--thinking off: there is no chat template with enable_thinking in use, so the model "
         "cannot be told; --thinking drop leaves out what it thinks");
  }
  if (name == "auto" && config.chat_template.empty()) return {};
  const ChatTemplate chat_template{config.chat_template, config.bos_token, config.eos_token,
                                   may_think};
  std::optional<Turn> turn;
  std::string why;
  if (!config.chat_template.empty()) {
    try {
      const std::vector<std::string> around = run_template(chat_template, {"user"});
      turn = {around[0], around[1]};
    } catch (const jinja::NotUnderstood& error) {
      why = error.what();
    }
  }
  if (!may_think && !turn) {
    fail(Exit::usage, "--thinking off: the chat template of {} could not be run ({})", model_folder,
         why);
  }
  if (turn) {
    for (const ChatFamily* family : kFamilies) {
      if ((name == "auto" || name == family->name) && writes({turn->before}, family->open) &&
          knows(tokenizer, *family))
        return style_of_turn(*turn, family, chat_template, tokenizer);
    }
    if (name == "auto" || (name == kLlama2 && writes({turn->before}, kInst)))
      return style_of_turn(*turn, nullptr, chat_template, tokenizer);
  }
  const Texts texts = texts_of_template(config.chat_template);
  if (const auto style = style_without_running(name, model_folder, texts, tokenizer)) {
    if (!texts.empty() && !turn) warn_of_what_is_left_out(model_folder, why, texts, *style);
    return *style;
  }
  if (name != "auto")
    fail(Exit::usage, "--chat: expected auto, none, llama3, qwen, llama2 or harmony, got '{}'",
         name);
  fail(
      Exit::bad_data,
      "{}: its chat template could not be run ({}), and it writes none of Llama 3's {}, Qwen's {}, "
      "GPT-OSS's {} and Llama 2's {}, or its tokenizer has no such token. Write the markup into "
      "the records "
      "yourself and pass --chat none --special-tokens parse, or pass --chat none for plain text",
      model_folder, why, kLlama3.open, kQwen.open, kHarmony.open, kInst);
}

std::vector<Token> wrap_context(const ChatStyle& style, const Tokenizer& tokenizer,
                                std::string_view text, SpecialTokens special) {
  std::vector<Token> tokens = tokenizer.prefix();
  append(tokens, tokenizer.encode(style.opening, SpecialTokens::parse));
  append(tokens, encode_between(tokenizer, style.lead, text, "", special));
  return tokens;
}

std::vector<Token> wrap_query(const ChatStyle& style, const Tokenizer& tokenizer,
                              std::string_view text, SpecialTokens special) {
  std::vector<Token> tokens =
      encode_between(tokenizer, style.query_prefix, text, style.trail, special);
  append(tokens, tokenizer.encode(style.closing, SpecialTokens::parse));
  return tokens;
}

std::optional<ChatStyle> chat_style_of_0_1_0(std::string_view name, const std::string& model_folder,
                                             const Tokenizer& tokenizer) {
  if (name == "none") return ChatStyle();
  const std::string chat_template = read_tokenizer_config(model_folder).chat_template;
  if (name == "auto" && chat_template.empty()) return ChatStyle();
  return style_without_running(name, model_folder, texts_of_template(chat_template), tokenizer);
}

std::string markup_of(const ChatStyle& style) {
  ChatStyle without = style;
  without.query_prefix.clear();
  return describe(without);
}

std::string describe(const ChatStyle& style) {
  const std::string prefix =
      style.query_prefix.empty() ? "" : to_line(Json(style.query_prefix)) + " ";
  if (style.name == "none") {
    return prefix.empty() ? "none: context and query as they are"
                          : fmt::format("none: context, {}query", prefix);
  }
  return fmt::format("{}: {} context, {}query {}", style.name,
                     to_line(Json(style.opening + style.lead)), prefix,
                     to_line(Json(style.trail + style.closing)));
}

}  // namespace starattn
