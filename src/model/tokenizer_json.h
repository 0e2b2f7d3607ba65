// SPDX-License-Identifier: Apache-2.0
// The BPE tokenizers of tokenizer.json: byte-level (Llama 3, Qwen) and SentencePiece-style with
// byte fallback (Llama 2, Mistral). The steps are those of Hugging Face's `tokenizers` library, in
// its order: cut out added tokens, normalize, cut into words, merge.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "model/added_tokens.h"
#include "model/bpe.h"
#include "model/pretokenizer.h"
#include "model/tokenizer.h"

namespace starattn {

class TokenizerJson : public Tokenizer {
 public:
  explicit TokenizerJson(const std::string& path);

  std::vector<Token> encode(std::string_view text, SpecialTokens special) const override;
  std::string bytes_of(Token token) const override;
  std::string decode(const std::vector<Token>& tokens, bool skip_special) const override;
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(pieces_.size()); }
  bool is_special(Token token) const override;
  Token find_token(std::string_view content) const override;
  const std::vector<Token>& prefix() const override { return prefix_; }
  bool strips_first_space() const override { return strips_first_space_; }

 private:
  void read_vocabulary(const JsonObject& model);
  void read_merges(const JsonObject& model);
  void read_added_tokens(const JsonObject& json);
  void read_prefix(const JsonObject& json);
  void read_decoder(const JsonObject& json);

  void encode_piece(std::string_view text, bool is_first, std::vector<Token>& tokens) const;
  void encode_word(const std::string& word, std::vector<Token>& tokens) const;
  std::vector<Token> first_symbols(const std::string& word) const;

  std::string where_;
  std::unordered_map<std::string, Token> vocabulary_;  // byte-level: keyed by raw bytes
  std::vector<std::string> pieces_;                    // what a token puts into text, by id
  Token byte_tokens_[256];                             // -1 where there is none
  Token unknown_ = -1;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  bool strips_first_space_ = false;
  Bpe bpe_;
  AddedTokens added_;
  std::unordered_map<Token, bool> added_is_special_;
  std::vector<Normalizer> normalizers_;
  PreTokenizers pre_tokenizers_;
  std::vector<Token> prefix_;
  mutable std::unordered_map<std::string, std::vector<Token>>
      cache_;  // words seen; one caller at a time
};

}  // namespace starattn
