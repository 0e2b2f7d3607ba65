// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, as the model's own tokenizer.json (or tokenizer.model) defines it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/next_token.h"

namespace starattn {

enum class SpecialTokens {
  text,   // "<|end|>" in the text is seven ordinary characters: nobody's text becomes markup
  parse,  // the text carries chat markup: special tokens in it are recognised
};

class Tokenizer {
 public:
  // Reads <folder>/tokenizer.json, else <folder>/tokenizer.model; and tokenizer_config.json if
  // there. n_embeddings: the model's tokens; an added token beyond them does not exist here, so a
  // text that mentions it stays text. Throws Error(no_input | bad_data) naming file and key.
  static std::unique_ptr<Tokenizer> open(const std::string& folder,
                                         std::int64_t n_embeddings = INT64_MAX);
  virtual ~Tokenizer() = default;

  // No BOS or EOS is added. The text must be UTF-8: Error(bad_data) with the byte offset otherwise.
  virtual std::vector<Token> encode(std::string_view text, SpecialTokens special) const = 0;

  // The bytes of one token as generation emits it (special tokens: their text; no such token:
  // nothing). For partial UTF-8 use StreamDecoder.
  virtual std::string bytes_of(Token token) const = 0;

  // The same where the token is a text's first: SentencePiece-style tokenizers drop the space that
  // they put in front of every text.
  virtual std::string opening_bytes_of(Token token) const = 0;

  // The text of a sequence; special tokens left out when skip_special. Invalid UTF-8 becomes
  // U+FFFD, one for each maximal broken part.
  std::string decode(const std::vector<Token>& tokens, bool skip_special) const;

  virtual std::int64_t vocab_size() const = 0;  // the largest id + 1
  virtual bool is_special(Token token) const = 0;
  virtual Token find_token(std::string_view content) const = 0;  // -1 when there is none

  // The tokens that the post-processor (or add_bos_token) puts in front of a single sequence.
  virtual const std::vector<Token>& prefix() const = 0;

  // Of all texts encoded so far: bytes that no token stands for. They were left out.
  std::int64_t n_dropped_bytes() const { return n_dropped_bytes_; }

 protected:
  mutable std::atomic<std::int64_t> n_dropped_bytes_ = 0;
};

// Text as it grows, token by token; holds back bytes of a character that is not complete yet.
// All that it gives, one after another, is decode(tokens, skip_special = true).
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  std::string push(
      Token token);      // the characters this token completed; special tokens give nothing
  std::string finish();  // what is left; an incomplete character becomes U+FFFD

 private:
  const Tokenizer* tokenizer_;
  bool is_opening_ = true;
  std::string pending_;  // bytes of a character that is not complete yet
};

}  // namespace starattn
