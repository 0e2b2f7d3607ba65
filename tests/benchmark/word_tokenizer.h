// SPDX-License-Identifier: Apache-2.0
// A tokenizer to measure with: a word, a digit, a line end or a sign is one token; spaces are none.
#pragma once

#include <cctype>

#include "tokenizer/tokenizer.h"

namespace starattn {

class WordTokenizer : public Tokenizer {
 public:
  std::vector<Token> encode(std::string_view text, SpecialTokens) const override {
    std::vector<Token> tokens;
    char before = ' ';
    for (const char c : text) {
      const bool goes_on = std::isalpha(static_cast<unsigned char>(c)) &&
                           std::isalpha(static_cast<unsigned char>(before));
      if (c != ' ' && !goes_on) tokens.push_back(static_cast<unsigned char>(c));
      before = c;
    }
    return tokens;
  }
  std::string bytes_of(Token) const override { return ""; }
  std::string opening_bytes_of(Token) const override { return ""; }
  std::int64_t vocab_size() const override { return 256; }
  bool is_special(Token) const override { return false; }
  Token find_token(std::string_view) const override { return -1; }
  const std::vector<Token>& prefix() const override { return prefix_; }

 private:
  std::vector<Token> prefix_ = {1};
};

}  // namespace starattn
