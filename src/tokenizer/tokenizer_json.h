// SPDX-License-Identifier: Apache-2.0
// The BPE tokenizers of tokenizer.json: byte-level (Llama 3, Qwen) and SentencePiece-style with
// byte fallback (Llama 2, Mistral). The steps are those of Hugging Face's `tokenizers` library, in
// its order: cut out added tokens, normalize, cut into words, merge.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe_model.h"
#include "tokenizer/bpe_seams.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/token_text.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/word_cache.h"

namespace starattn {

class TokenizerJson : public Tokenizer {
 public:
  // json: the parsed file; where: its path, for messages; n_embeddings: as Tokenizer::open.
  // Throws Error(bad_data), UnsupportedTokenizer.
  TokenizerJson(const Json& json, const std::string& where, const TokenizerConfig& config,
                std::int64_t n_embeddings);

  std::vector<Token> encode(std::string_view text, SpecialTokens special) const override;
  std::string bytes_of(Token token) const override;
  std::string opening_bytes_of(Token token) const override;
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(vocabulary_.size()); }
  bool is_special(Token token) const override;
  Token find_token(std::string_view content) const override { return vocabulary_.find(content); }
  const std::vector<Token>& prefix() const override { return prefix_; }

 private:
  TokenizerJson(const JsonObject& json, const TokenizerConfig& config, std::int64_t n_embeddings);
  void read_added_tokens(const JsonObject& json, std::int64_t n_embeddings);
  void add_token(const AddedToken& token);
  void set_prefix(const JsonObject& json, const TokenizerConfig& config);

  void encode_piece(const Piece& piece, SpecialTokens special, std::vector<Token>& tokens) const;
  void encode_words(const Piece& piece, std::vector<Token>& tokens) const;
  void encode_word(std::string_view word, std::vector<Token>& tokens) const;

  BpeModel model_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  TokenText token_text_;
  std::unique_ptr<const BpeSeams> seams_;              // of SentencePiece-style tokenizers
  AddedTokens added_;                                  // looked for in the text as it is
  AddedTokens added_normalized_;                       // looked for in the normalized text
  Vocabulary vocabulary_;                              // the model's and the added tokens
  std::unordered_map<Token, std::string> added_text_;  // added tokens as they stand in a text
  std::vector<bool> is_special_;                       // by id
  std::vector<Token> prefix_;

  mutable std::mutex mutex_;  // patterns and cache serve one caller at a time
  mutable WordCache cache_;
};

}  // namespace starattn
