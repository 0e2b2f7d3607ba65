// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/chat_family.h"

#include <algorithm>

namespace starattn {
namespace {

constexpr std::size_t kMaxMarkup = 64;  // bytes of a special token

bool is_special_text(const Tokenizer& tokenizer, std::string_view text) {
  const Token token = tokenizer.find_token(text);
  return token >= 0 && tokenizer.is_special(token);
}

}  // namespace

const char* begin_of_family(std::string_view name) {
  for (const ChatFamily* family : {&kLlama3, &kQwen})
    if (name == family->name) return family->begin;
  return name == kLlama2 ? "<s>" : nullptr;
}

std::string begin_where_due(const char* begin, const Tokenizer& tokenizer) {
  return begin && tokenizer.prefix().empty() && tokenizer.find_token(begin) >= 0 ? begin : "";
}

std::string as_beginning(std::string before, const char* begin, const Tokenizer& tokenizer) {
  const std::string prefix =
      tokenizer.prefix().empty() ? "" : tokenizer.bytes_of(tokenizer.prefix()[0]);
  if (before.starts_with(prefix)) before.erase(0, prefix.size());
  return begin && !before.starts_with(begin) ? begin_where_due(begin, tokenizer) + before : before;
}

std::size_t end_of_markup(const std::string& text, const Tokenizer& tokenizer) {
  for (std::size_t end = text.size(); end > 0; --end) {
    for (std::size_t n = 1; n <= std::min(end, kMaxMarkup); ++n) {
      if (is_special_text(tokenizer, std::string_view(text).substr(end - n, n))) return end;
    }
  }
  return 0;
}

std::pair<std::size_t, std::size_t> first_markup(const std::string& text,
                                                 const Tokenizer& tokenizer) {
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    for (std::size_t n = std::min(text.size() - begin, kMaxMarkup); n > 0; --n) {
      if (is_special_text(tokenizer, std::string_view(text).substr(begin, n))) return {begin, n};
    }
  }
  return {text.size(), 0};
}

}  // namespace starattn
