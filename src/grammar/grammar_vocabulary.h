// SPDX-License-Identifier: Apache-2.0
// A model's tokens by their bytes, as grammars need them: what each writes, and all of them in a
// tree, in which tokens that begin alike share a path.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/next_token.h"
#include "grammar/expressions.h"

namespace starattn {

class TokenTree {
 public:
  struct Node {
    std::uint32_t end = 0;  // the first node behind those below this one
    std::uint32_t first_token = 0;
    std::uint16_t n_tokens = 0;  // that end here
    std::uint16_t depth = 0;     // bytes before this one
    unsigned char byte = 0;
  };

  TokenTree() = default;
  // texts: of each token; those of fewer bytes than `least` or more than `most` are not in the
  // tree.
  TokenTree(const std::vector<std::string>& texts, std::size_t least, std::size_t most);

  // In the order of their texts: a node, then those below it.
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const Token> tokens(const Node& node) const {
    return std::span(tokens_).subspan(node.first_token, node.n_tokens);
  }

 private:
  std::vector<Node> nodes_;
  std::vector<Token> tokens_;
};

class GrammarVocabulary {
 public:
  // What tokens write: texts[token], and opening_texts[token] where it is an answer's first (no
  // opening_texts: the same); empty where nothing. size: of a row of logits, at least as many. eos:
  // these end an answer. marks: of the others, those behind which the next one still counts as an
  // answer's first.
  GrammarVocabulary(std::int64_t size, std::vector<std::string> texts,
                    std::vector<std::string> opening_texts, std::vector<Token> eos,
                    std::vector<Token> marks = {});

  std::int64_t size() const { return size_; }
  const std::string& text(Token token, bool is_opening) const;
  bool has_opening_texts() const { return !opening_texts_.empty(); }
  // Nearly all tokens have at most so many bytes; few have more.
  static constexpr std::uint32_t kShort = 16;
  const TokenTree& short_tree(bool is_opening) const {
    return is_opening && has_opening_texts() ? short_opening_tree_ : short_tree_;
  }
  const TokenTree& long_tree(bool is_opening) const {
    return is_opening && has_opening_texts() ? long_opening_tree_ : long_tree_;
  }
  std::span<const Token> eos() const { return eos_; }
  bool is_mark(Token token) const;
  std::uint32_t longest() const { return longest_; }  // bytes of a token
  // Bytes that are tokens of their own.
  const ByteSet& single_bytes() const { return single_bytes_; }

 private:
  std::int64_t size_;
  std::vector<std::string> texts_, opening_texts_;
  std::vector<Token> eos_, marks_;
  TokenTree short_tree_, long_tree_, short_opening_tree_, long_opening_tree_;
  std::uint32_t longest_ = 0;
  ByteSet single_bytes_;
};

}  // namespace starattn
