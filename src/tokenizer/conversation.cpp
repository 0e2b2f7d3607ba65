// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/conversation.h"

#include <map>

#include "base/error.h"
#include "base/json.h"
#include "tokenizer/chat_family.h"
#include "tokenizer/jinja.h"

namespace starattn {
namespace {

// Markup becomes special tokens where it names them; all else between two of them is one text, of
// which letters may share a token whoever wrote them.
class TurnWriter {
 public:
  TurnWriter(std::vector<Token> begin, const Tokenizer& tokenizer, SpecialTokens special)
      : tokens_(std::move(begin)), tokenizer_(&tokenizer), special_(special) {}

  void text(std::string_view text) { text_ += text; }
  void markup(const TurnMarkup& markup) {
    text(markup.trail);
    if (markup.tokens.empty()) return;
    write_text();
    append(tokenizer_->encode(markup.tokens, SpecialTokens::parse));
    text(markup.lead);
  }
  std::vector<Token> all() {
    write_text();
    return std::move(tokens_);
  }

 private:
  void write_text() {
    append(tokenizer_->encode(text_, special_));
    text_.clear();
  }
  void append(const std::vector<Token>& more) {
    tokens_.insert(tokens_.end(), more.begin(), more.end());
  }

  std::vector<Token> tokens_;
  const Tokenizer* tokenizer_;
  SpecialTokens special_;
  std::string text_;  // that is not written yet
};

std::vector<std::string> turns_of_family(const ChatFamily& family, const ChatStyle& style,
                                         const Tokenizer& tokenizer,
                                         const std::vector<std::string>& roles) {
  std::vector<std::string> around = {roles[0] == "user" ? style.opening + style.lead
                                                        : begin_where_due(family.begin, tokenizer) +
                                                              family.opening_of_turn(roles[0])};
  for (std::size_t i = 1; i < roles.size(); ++i)
    around.push_back(family.close + family.opening_of_turn(roles[i]));
  around.push_back(style.trail + style.closing);
  return around;
}

TurnMarkup cut(const std::string& markup, const Tokenizer& tokenizer) {
  const std::size_t end = end_of_markup(markup, tokenizer);
  if (end == 0) return {markup, "", ""};
  const std::size_t begin = first_markup(markup, tokenizer).first;
  return {markup.substr(0, begin), markup.substr(begin, end - begin), markup.substr(end)};
}

std::string placeholder(std::size_t i) {
  return "\x02text " + std::to_string(i) + "\x03";
}

}  // namespace

std::vector<std::string> run_template(const ChatTemplate& chat_template,
                                      const std::vector<std::string>& roles) {
  Json messages = Json::array();
  for (std::size_t i = 0; i < roles.size(); ++i)
    messages.push_back({{"role", roles[i]}, {"content", placeholder(i)}});
  std::map<std::string, Json> variables = {{"messages", std::move(messages)},
                                           {"add_generation_prompt", true},
                                           {"tools", nullptr},
                                           {"documents", nullptr}};
  if (!chat_template.bos_token.empty()) variables["bos_token"] = chat_template.bos_token;
  if (!chat_template.eos_token.empty()) variables["eos_token"] = chat_template.eos_token;
  if (!chat_template.may_think) variables["enable_thinking"] = false;
  const std::string written = jinja::render(chat_template.source, std::move(variables));
  std::vector<std::string> around;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < roles.size(); ++i) {
    const std::string text = placeholder(i);
    const std::size_t at = written.find(text);
    if (at == std::string::npos || at < begin || written.find(text, at + 1) != std::string::npos) {
      throw jinja::NotUnderstood(roles.size() == 1
                                     ? "the text of a user is not written once"
                                     : "the messages are not written once each, in their order");
    }
    around.push_back(written.substr(begin, at - begin));
    begin = at + text.size();
  }
  around.push_back(written.substr(begin));
  return around;
}

namespace {

// The markup of turns as texts, as markup_around gives it in parts.
std::vector<std::string> texts_around(const ChatStyle& style, const Tokenizer& tokenizer,
                                      const std::vector<std::string>& roles) {
  if (style.name == "none") {
    std::vector<std::string> around(roles.size() + 1, "\n\n");
    around.front() = around.back() = "";
    return around;
  }
  std::string why = "it could not be run";
  if (!style.chat_template.source.empty()) {
    try {
      std::vector<std::string> around = run_template(style.chat_template, roles);
      around[0] = as_beginning(around[0], begin_of_family(style.name), tokenizer);
      return around;
    } catch (const jinja::NotUnderstood& error) {
      why = error.what();
    }
  } else {
    for (const ChatFamily* family : {&kLlama3, &kQwen})
      if (style.name == family->name) return turns_of_family(*family, style, tokenizer, roles);
    if (roles.size() == 1) return {style.opening + style.lead, style.trail + style.closing};
  }
  fail(Exit::bad_data,
       "messages of {}: the model's chat template has no markup for them ({}). Put them into one "
       "message",
       fmt::join(roles, ", "), why);
}

}  // namespace

std::vector<TurnMarkup> markup_around(const ChatStyle& style, const Tokenizer& tokenizer,
                                      const std::vector<std::string>& roles) {
  STARATTN_CHECK(!roles.empty());
  std::vector<TurnMarkup> around;
  for (const std::string& markup : texts_around(style, tokenizer, roles))
    around.push_back(cut(markup, tokenizer));
  return around;
}

std::vector<Token> wrap_turns(const std::vector<TurnMarkup>& around, const Tokenizer& tokenizer,
                              const std::vector<std::string_view>& texts, std::string_view context,
                              SpecialTokens special) {
  STARATTN_CHECK(around.size() == texts.size() + 2);
  TurnWriter writer(tokenizer.prefix(), tokenizer, special);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    writer.markup(around[i]);
    writer.text(texts[i]);
  }
  TurnMarkup last = around[texts.size()];
  // Without a text here, what stands behind the last special token is of one text with the
  // question.
  if (context.empty()) (last.tokens.empty() ? last.trail : last.lead).clear();
  writer.markup(last);
  writer.text(context);
  return writer.all();
}

std::vector<Token> wrap_question(const std::vector<TurnMarkup>& around, const Tokenizer& tokenizer,
                                 bool has_context, std::string_view question,
                                 SpecialTokens special) {
  const TurnMarkup& last = around[around.size() - 2];
  TurnWriter writer({}, tokenizer, special);
  if (!has_context) writer.text(last.tokens.empty() ? last.trail : last.lead);
  writer.text(question);
  writer.markup(around.back());
  return writer.all();
}

}  // namespace starattn
