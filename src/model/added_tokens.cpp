// SPDX-License-Identifier: Apache-2.0
#include "model/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

namespace starattn {
namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// Whether the character that starts at `at` (or ends before it, backwards) is part of a word.
bool is_word_at(std::string_view text, std::size_t at) {
  utf8proc_int32_t c = 0;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                   static_cast<utf8proc_ssize_t>(text.size() - at), &c);
  const auto kind = utf8proc_category(c);
  return c == '_' || (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
         (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  if (end < text.size() && is_word_at(text, end)) return true;
  if (begin == 0) return false;
  std::size_t before = begin - 1;
  while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xc0U) == 0x80U) --before;
  return is_word_at(text, before);
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  auto& candidates = by_first_byte_[static_cast<unsigned char>(token.content.front())];
  candidates.push_back(tokens_.size());
  tokens_.push_back(std::move(token));
  std::stable_sort(candidates.begin(), candidates.end(), [&](std::size_t a, std::size_t b) {
    return tokens_[a].content.size() > tokens_[b].content.size();
  });
}

void AddedTokens::cut(std::string_view whole, const std::function<bool(const AddedToken&)>& wanted,
                      const std::function<void(std::string_view)>& text,
                      const std::function<void(const AddedToken&)>& token) const {
  std::size_t done = 0;
  for (std::size_t at = 0; at < whole.size();) {
    const AddedToken* match = nullptr;
    const auto candidates = by_first_byte_.find(static_cast<unsigned char>(whole[at]));
    if (candidates != by_first_byte_.end()) {
      for (const std::size_t i : candidates->second) {
        const AddedToken& candidate = tokens_[i];
        if (!whole.substr(at).starts_with(candidate.content) || !wanted(candidate)) continue;
        if (candidate.single_word && touches_word(whole, at, at + candidate.content.size()))
          continue;
        match = &candidate;
        break;
      }
    }
    if (!match) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + match->content.size();
    while (match->lstrip && begin > done && is_space(whole[begin - 1])) --begin;
    while (match->rstrip && end < whole.size() && is_space(whole[end])) ++end;
    if (begin > done) text(whole.substr(done, begin - done));
    token(*match);
    done = at = end;
  }
  if (done < whole.size()) text(whole.substr(done));
}

}  // namespace starattn
