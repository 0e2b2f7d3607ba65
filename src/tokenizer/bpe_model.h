// SPDX-License-Identifier: Apache-2.0
// The "model" of a tokenizer.json: vocabulary, merges and what to do with characters that the
// vocabulary lacks. Turns one word, written in the vocabulary's own alphabet, into tokens.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/function_ref.h"
#include "base/json.h"
#include "tokenizer/bpe.h"
#include "tokenizer/vocabulary.h"

namespace starattn {

class BpeModel {
 public:
  explicit BpeModel(const JsonObject& json);  // throws Error(bad_data), UnsupportedTokenizer

  // Appends the word's tokens. dropped: gets each character that neither has a token nor an unknown
  // one to stand for it; such characters are left out, as the `tokenizers` library does.
  void encode(std::string_view word, std::vector<Token>& tokens,
              FunctionRef<void(std::string_view)> dropped) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  bool ignores_merges() const { return ignore_merges_; }
  bool is_byte_or_unknown(Token token) const;  // not a character that the vocabulary holds

  // The merges' two sides, in order of rank.
  const std::vector<std::pair<Token, Token>>& merge_pairs() const { return pairs_; }

 private:
  void read_merges(const JsonObject& json);
  std::vector<Token> first_symbols(std::string_view word,
                                   FunctionRef<void(std::string_view)> dropped) const;
  bool append_bytes(std::string_view character, std::vector<Token>& symbols) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::vector<std::pair<Token, Token>> pairs_;
  std::array<Token, 256> byte_tokens_;  // <0x00> to <0xFF>, -1 where there is none
  Token unknown_ = -1;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;   // a run of unknown characters gives one token
  bool ignore_merges_ = false;  // a word that is a token is that token, whatever the merges say
};

// "<0x0A>" is the token of byte 10; nullopt for any other content.
std::optional<unsigned char> byte_of_token(std::string_view content);

}  // namespace starattn
