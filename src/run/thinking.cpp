// SPDX-License-Identifier: Apache-2.0
#include "run/thinking.h"

#include <algorithm>

namespace starattn {
namespace {

constexpr const char* kBlanks = " \t\r\n";

std::string_view without_blanks_in_front(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kBlanks), text.size()));
}

std::string_view without_blanks_behind(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kBlanks) + 1);
}

}  // namespace

bool opens_thinking(std::string_view prompt) {
  return without_blanks_behind(prompt).ends_with(kThinkBegin);
}

Thought split_thought(std::string_view text, bool is_inside) {
  std::string_view rest = without_blanks_in_front(text);
  if (rest.starts_with(kThinkBegin)) {
    rest.remove_prefix(kThinkBegin.size());
  } else if (!is_inside) {
    return {std::nullopt, std::string(text)};
  }
  const std::size_t end = rest.find(kThinkEnd);
  const std::string_view thought =
      without_blanks_behind(without_blanks_in_front(rest.substr(0, end)));
  if (end == std::string_view::npos) return {std::string(thought), "", true};
  return {std::string(thought),
          std::string(without_blanks_in_front(rest.substr(end + kThinkEnd.size())))};
}

std::string_view tag_of(const Tokenizer& tokenizer, Token token) {
  for (const std::string_view tag : {kThinkBegin, kThinkEnd})
    if (token == tokenizer.find_token(tag)) return tag;
  return {};
}

std::string text_with_tags(const Tokenizer& tokenizer, std::span<const Token> tokens) {
  std::string text;
  StreamDecoder stream(tokenizer);
  for (const Token token : tokens) {
    const std::string_view tag = tag_of(tokenizer, token);
    const std::string pushed = stream.push(token);
    text += tag.empty() || !pushed.empty() ? pushed : std::string(tag);
  }
  return text + stream.finish();
}

}  // namespace starattn
