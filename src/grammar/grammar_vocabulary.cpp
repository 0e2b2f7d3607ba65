// SPDX-License-Identifier: Apache-2.0
#include "grammar/grammar_vocabulary.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace starattn {
namespace {

constexpr std::size_t kLongest = std::size_t{1} << 12;  // bytes of a token

}  // namespace

TokenTree::TokenTree(const std::vector<std::string>& texts, std::size_t least, std::size_t most) {
  for (std::size_t token = 0; token < texts.size(); ++token)
    if (texts[token].size() >= least && texts[token].size() <= most)
      tokens_.push_back(static_cast<Token>(token));
  const auto text = [&](Token token) -> const std::string& {
    return texts[static_cast<std::size_t>(token)];
  };
  std::ranges::stable_sort(tokens_, [&](Token a, Token b) { return text(a) < text(b); });
  std::vector<std::uint32_t> open;  // the nodes of the last text's bytes
  const auto close_to = [&](std::size_t n) {
    for (; open.size() > n; open.pop_back())
      nodes_[open.back()].end = static_cast<std::uint32_t>(nodes_.size());
  };
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& now = text(tokens_[i]);
    std::size_t n_shared = 0;  // with the text before
    while (n_shared < std::min(open.size(), now.size()) &&
           nodes_[open[n_shared]].byte == static_cast<unsigned char>(now[n_shared]))
      ++n_shared;
    close_to(n_shared);
    for (std::size_t k = n_shared; k < now.size(); ++k) {
      open.push_back(static_cast<std::uint32_t>(nodes_.size()));
      nodes_.push_back({0, static_cast<std::uint32_t>(i), 0, static_cast<std::uint16_t>(k),
                        static_cast<unsigned char>(now[k])});
    }
    Node& node = nodes_[open.back()];
    if (node.n_tokens == 0) node.first_token = static_cast<std::uint32_t>(i);
    STARATTN_CHECK(++node.n_tokens != 0);
  }
  close_to(0);
}

GrammarVocabulary::GrammarVocabulary(std::int64_t size, std::vector<std::string> texts,
                                     std::vector<std::string> opening_texts, std::vector<Token> eos,
                                     std::vector<Token> marks)
    : size_(size),
      texts_(std::move(texts)),
      opening_texts_(std::move(opening_texts)),
      eos_(std::move(eos)),
      marks_(std::move(marks)) {
  STARATTN_CHECK(std::ssize(texts_) <= size_ && std::ssize(opening_texts_) <= size_);
  for (std::vector<std::string>* all : {&texts_, &opening_texts_}) {
    for (const std::string& text : *all) {
      STARATTN_CHECK(text.size() <= kLongest);
      longest_ = std::max(longest_, static_cast<std::uint32_t>(text.size()));
    }
    for (const Token token : eos_)
      if (token >= 0 && token < std::ssize(*all)) (*all)[static_cast<std::size_t>(token)].clear();
  }
  std::erase_if(eos_, [&](Token token) { return token < 0 || token >= size_; });
  for (const std::string& text : texts_)
    if (text.size() == 1) single_bytes_.set(static_cast<unsigned char>(text[0]));
  short_tree_ = TokenTree(texts_, 1, kShort);
  long_tree_ = TokenTree(texts_, kShort + 1, kLongest);
  short_opening_tree_ = TokenTree(opening_texts_, 1, kShort);
  long_opening_tree_ = TokenTree(opening_texts_, kShort + 1, kLongest);
}

const std::string& GrammarVocabulary::text(Token token, bool is_opening) const {
  static const std::string kNone;
  const auto& texts = is_opening && has_opening_texts() ? opening_texts_ : texts_;
  const bool is_one = token >= 0 && token < std::ssize(texts);
  return is_one ? texts[static_cast<std::size_t>(token)] : kNone;
}

bool GrammarVocabulary::is_mark(Token token) const {
  return std::ranges::find(marks_, token) != marks_.end();
}

}  // namespace starattn
