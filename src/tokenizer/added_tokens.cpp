// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"

namespace starattn {
namespace {

std::uint64_t edge(std::uint32_t node, char byte) {
  return std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin > 0 && is_word_character(character_at(text, character_before(text, begin)))) ||
         (end < text.size() && is_word_character(character_at(text, end)));
}

std::size_t without_space_before(std::string_view text, std::size_t begin) {
  while (begin > 0 && is_white_space(character_at(text, character_before(text, begin)))) {
    begin = character_before(text, begin);
  }
  return begin;
}

std::size_t without_space_behind(std::string_view text, std::size_t end) {
  while (end < text.size() && is_white_space(character_at(text, end))) {
    end += character_bytes(text, end);
  }
  return end;
}

}  // namespace

AddedToken AddedToken::read(const JsonObject& json) {
  AddedToken token;
  token.id = static_cast<Token>(json.get_int("id", 0, Vocabulary::kMaxSize - 1));
  token.content = json.get_string("content");
  token.special = json.find_bool("special").value_or(false);
  token.normalized = json.find_bool("normalized").value_or(!token.special);
  token.lstrip = json.find_bool("lstrip").value_or(false);
  token.rstrip = json.find_bool("rstrip").value_or(false);
  token.single_word = json.find_bool("single_word").value_or(false);
  return token;
}

void drop_beyond(std::int64_t n_embeddings, std::vector<AddedToken>& tokens,
                 const std::string& where) {
  const auto is_beyond = [&](const AddedToken& token) { return token.id >= n_embeddings; };
  const auto first = std::ranges::find_if(tokens, is_beyond);
  if (first == tokens.end()) return;
  log::warn(
      "{}: {} added token(s) have no row in the model's embedding of {}, '{}' ({}) is one: in a "
      "text they stay text",
      where, std::ranges::count_if(tokens, is_beyond), n_embeddings, first->content, first->id);
  std::erase_if(tokens, is_beyond);
}

void AddedTokens::add(const AddedToken& token, std::string_view spelling) {
  if (spelling.empty()) return;
  std::uint32_t node = 0;
  for (const char byte : spelling) {
    const auto next = static_cast<std::uint32_t>(token_of_node_.size());
    const auto [child, is_new] = children_.try_emplace(edge(node, byte), next);
    if (is_new) token_of_node_.push_back(-1);
    node = child->second;
  }
  first_bytes_.set(static_cast<unsigned char>(spelling[0]));
  if (token_of_node_[node] >= 0) return;
  token_of_node_[node] = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
}

const AddedToken* AddedTokens::longest_at(std::string_view text, std::size_t at,
                                          std::size_t& end) const {
  const AddedToken* longest = nullptr;
  std::uint32_t node = 0;
  while (at < text.size()) {
    const auto child = children_.find(edge(node, text[at]));
    if (child == children_.end()) break;
    node = child->second;
    ++at;
    if (token_of_node_[node] < 0) continue;
    longest = &tokens_[static_cast<std::size_t>(token_of_node_[node])];
    end = at;
  }
  return longest;
}

void AddedTokens::cut(std::string_view whole, SpecialTokens special,
                      FunctionRef<void(std::string_view)> text,
                      FunctionRef<void(const AddedToken&)> token) const {
  std::size_t done = 0;
  for (std::size_t at = 0; at < whole.size();) {
    std::size_t end = at + 1;
    const bool may_match = first_bytes_[static_cast<unsigned char>(whole[at])];
    const AddedToken* match = may_match ? longest_at(whole, at, end) : nullptr;
    const std::size_t match_begin = at;
    at = end;
    if (!match || (match->special && special == SpecialTokens::text)) continue;
    if (match->single_word && touches_word(whole, match_begin, end)) continue;

    std::size_t begin = match_begin;
    if (match->lstrip) begin = std::max(without_space_before(whole, begin), done);
    if (match->rstrip) end = without_space_behind(whole, end);
    if (begin > done) text(whole.substr(done, begin - done));
    token(*match);
    done = end;
  }
  if (done < whole.size()) text(whole.substr(done));
}

}  // namespace starattn
