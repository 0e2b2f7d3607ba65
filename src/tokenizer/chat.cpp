// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/chat.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/jinja.h"
#include "tokenizer/tokenizer_config.h"

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

constexpr const Markup* kFamilies[] = {&kLlama3, &kQwen};

// Llama 2 and Mistral have no roles: <s>[INST] text [/INST], plain text in older tokenizers.
constexpr const char* kLlama2 = "llama2";
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

// The BOS, where it is for the markup to write.
std::string begin_of(const char* begin, const Tokenizer& tokenizer) {
  return tokenizer.prefix().empty() && tokenizer.find_token(begin) >= 0 ? begin : "";
}

ChatStyle style_of_family(const Markup& family, const Texts& texts, const Tokenizer& tokenizer) {
  std::string before = default_system_turn(family, texts) + opening_of_turn(family, "user");
  if (family.begin) before = begin_of(family.begin, tokenizer) + before;

  ChatStyle style;
  style.name = family.name;
  const std::size_t tail = before.rfind("|>") + 2;
  style.opening = before.substr(0, tail);
  style.lead = before.substr(tail);
  style.query_prefix = kBlankLine;
  style.closing =
      family.close + opening_of_turn(family, "assistant") + opening_of_answer(family, texts);
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
  style.opening = begin_of("<s>", tokenizer) + before.substr(0, head);
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

// Throws jinja::NotUnderstood.
Turn run_template(const TokenizerConfig& config) {
  const std::string text = "\x02the text\x03";
  std::map<std::string, Json> variables = {
      {"messages", Json::array({{{"role", "user"}, {"content", text}}})},
      {"add_generation_prompt", true},
      {"tools", nullptr},
      {"documents", nullptr}};
  if (!config.bos_token.empty()) variables["bos_token"] = config.bos_token;
  if (!config.eos_token.empty()) variables["eos_token"] = config.eos_token;
  const std::string written = jinja::render(config.chat_template, std::move(variables));
  const std::size_t at = written.find(text);
  if (at == std::string::npos || written.find(text, at + 1) != std::string::npos)
    throw jinja::NotUnderstood("the text of a user is not written once");
  return {written.substr(0, at), written.substr(at + text.size())};
}

bool is_special_text(const Tokenizer& tokenizer, std::string_view text) {
  const Token token = tokenizer.find_token(text);
  return token >= 0 && tokenizer.is_special(token);
}

constexpr std::size_t kMaxMarkup = 64;  // bytes of a special token

// What of a text is up to its last special token.
std::size_t end_of_markup(const std::string& text, const Tokenizer& tokenizer) {
  for (std::size_t end = text.size(); end > 0; --end) {
    for (std::size_t n = 1; n <= std::min(end, kMaxMarkup); ++n) {
      if (is_special_text(tokenizer, std::string_view(text).substr(end - n, n))) return end;
    }
  }
  return 0;
}

// Where a text's first special token begins, and its length; the text's size where it has none.
std::pair<std::size_t, std::size_t> first_markup(const std::string& text,
                                                 const Tokenizer& tokenizer) {
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    for (std::size_t n = std::min(text.size() - begin, kMaxMarkup); n > 0; --n) {
      if (is_special_text(tokenizer, std::string_view(text).substr(begin, n))) return {begin, n};
    }
  }
  return {text.size(), 0};
}

// family: whose BOS and stops are known; nullptr: another one's.
ChatStyle style_of_turn(const Turn& turn, const Markup* family, const TokenizerConfig& config,
                        const Tokenizer& tokenizer) {
  std::string before = turn.before;
  const std::string prefix =
      tokenizer.prefix().empty() ? "" : tokenizer.bytes_of(tokenizer.prefix()[0]);
  if (before.starts_with(prefix)) before.erase(0, prefix.size());  // which every context gets
  ChatStyle style;
  style.name = family ? family->name : writes({before}, kInst) ? kLlama2 : "template";
  const char* begin_of_text = family ? family->begin : style.name == kLlama2 ? "<s>" : nullptr;
  if (begin_of_text && !before.starts_with(begin_of_text))
    before = begin_of(begin_of_text, tokenizer) + before;
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
    stops = {config.eos_token, turn.behind.substr(begin, n)};
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
  for (const Markup* family : kFamilies) {
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

}  // namespace

ChatStyle chat_style_from_name(std::string_view name, const std::string& model_folder,
                               const Tokenizer& tokenizer) {
  if (name == "none") return {};
  const TokenizerConfig config = read_tokenizer_config(model_folder);
  if (name == "auto" && config.chat_template.empty()) return {};
  std::optional<Turn> turn;
  std::string why;
  if (!config.chat_template.empty()) {
    try {
      turn = run_template(config);
    } catch (const jinja::NotUnderstood& error) {
      why = error.what();
    }
  }
  if (turn) {
    for (const Markup* family : kFamilies) {
      if ((name == "auto" || name == family->name) && writes({turn->before}, family->open) &&
          knows(tokenizer, *family))
        return style_of_turn(*turn, family, config, tokenizer);
    }
    if (name == "auto" || (name == kLlama2 && writes({turn->before}, kInst)))
      return style_of_turn(*turn, nullptr, config, tokenizer);
  }
  const Texts texts = texts_of_template(config.chat_template);
  if (const auto style = style_without_running(name, model_folder, texts, tokenizer)) {
    if (!texts.empty() && !turn) warn_of_what_is_left_out(model_folder, why, texts, *style);
    return *style;
  }
  if (name != "auto")
    fail(Exit::usage, "--chat: expected auto, none, llama3, qwen or llama2, got '{}'", name);
  fail(Exit::bad_data,
       "{}: its chat template could not be run ({}), and it writes none of Llama 3's {}, Qwen's {} "
       "and Llama 2's {}, or its tokenizer has no such token. Write the markup into the records "
       "yourself and pass --chat none --special-tokens parse, or pass --chat none for plain text",
       model_folder, why, kLlama3.open, kQwen.open, kInst);
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
