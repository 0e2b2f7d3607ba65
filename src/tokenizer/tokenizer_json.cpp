// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/tokenizer_json.h"

#include "base/error.h"
#include "base/text.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/token_prefix.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;
constexpr std::size_t kMaxAddedTokens = std::size_t{1} << 17;

void check_text(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    fail(Exit::bad_data, "the text has {} bytes, at most {} are encoded at once", text.size(),
         kMaxTextBytes);
  }
  std::size_t bad = 0;
  if (!is_utf8(text, &bad)) {
    fail(Exit::bad_data, "the text is not UTF-8: byte {} of {}", bad, text.size());
  }
}

}  // namespace

TokenizerJson::TokenizerJson(const Json& json, const std::string& where,
                             const TokenizerConfig& config, std::int64_t n_embeddings)
    : TokenizerJson(JsonObject(json, where), config, n_embeddings) {}

TokenizerJson::TokenizerJson(const JsonObject& json, const TokenizerConfig& config,
                             std::int64_t n_embeddings)
    : model_(json.get_object("model")),
      normalizer_(json),
      pre_tokenizer_(json),
      token_text_(json, pre_tokenizer_.is_byte_level()),
      vocabulary_(model_.vocabulary()) {
  if (!pre_tokenizer_.is_byte_level()) seams_ = std::make_unique<BpeSeams>(model_);
  read_added_tokens(json, n_embeddings);
  set_prefix(json, config);
}

void TokenizerJson::read_added_tokens(const JsonObject& json, std::int64_t n_embeddings) {
  std::vector<AddedToken> tokens;
  if (json.has("added_tokens")) {
    for (const Json& entry : json.get("added_tokens"))
      tokens.push_back(AddedToken::read({entry, json.where() + ": added_tokens"}));
  }
  drop_beyond(n_embeddings, tokens, json.where());
  for (const AddedToken& token : tokens)
    vocabulary_.add(token.content, token.id, json.where() + ": added_tokens");
  if (tokens.size() > kMaxAddedTokens) {
    fail(Exit::bad_data, "{}: more than {} added tokens", json.where(), kMaxAddedTokens);
  }
  is_special_.resize(vocabulary_.size());
  for (const bool special : {true, false}) {  // of two spelled alike the special one counts
    for (const AddedToken& token : tokens) {
      if (token.special == special) add_token(token);
    }
  }
}

void TokenizerJson::add_token(const AddedToken& token) {
  const auto index = static_cast<std::size_t>(token.id);
  is_special_[index] = is_special_[index] || token.special;
  const std::string& text =
      added_text_.emplace(token.id, token.normalized ? normalizer_(token.content) : token.content)
          .first->second;
  (token.normalized ? added_normalized_ : added_).add(token, text);
}

// The post-processor's tokens. In the Llama tokenizer classes add_bos_token replaces them, as it
// does in `transformers`; to others it says nothing.
void TokenizerJson::set_prefix(const JsonObject& json, const TokenizerConfig& config) {
  prefix_ = read_prefix(json, [&](Token token) { return !vocabulary_.content(token).empty(); });
  if (!config.is_llama_class || !config.add_bos_token.has_value()) return;
  if (!*config.add_bos_token) return prefix_.clear();
  if (config.bos_token.empty()) return;
  const Token bos = vocabulary_.find(config.bos_token);
  if (bos < 0) {
    fail(Exit::bad_data, "{}: bos_token '{}' of tokenizer_config.json is not in the vocabulary",
         json.where(), config.bos_token);
  }
  prefix_ = {bos};
}

std::vector<Token> TokenizerJson::encode(std::string_view text, SpecialTokens special) const {
  check_text(text);
  const std::lock_guard lock(mutex_);
  std::vector<Token> tokens;
  added_.cut(
      text, special,
      [&](std::string_view part) {
        encode_piece({part, part.data() == text.data()}, special, tokens);
      },
      [&](const AddedToken& token) { tokens.push_back(token.id); });
  return tokens;
}

void TokenizerJson::encode_piece(const Piece& piece, SpecialTokens special,
                                 std::vector<Token>& tokens) const {
  const std::string text = normalizer_(std::string(piece.text));
  added_normalized_.cut(
      text, special,
      [&](std::string_view part) {
        encode_words({part, piece.opens_text && part.data() == text.data()}, tokens);
      },
      [&](const AddedToken& token) { tokens.push_back(token.id); });
}

void TokenizerJson::encode_words(const Piece& piece, std::vector<Token>& tokens) const {
  pre_tokenizer_.cut(piece, [&](const Piece& word) {
    if (!seams_) return encode_word(word.text, tokens);
    seams_->cut(word.text, [&](std::string_view part) { encode_word(part, tokens); });
  });
}

void TokenizerJson::encode_word(std::string_view word, std::vector<Token>& tokens) const {
  if (const std::vector<Token>* known = cache_.find(word)) {
    tokens.insert(tokens.end(), known->begin(), known->end());
    return;
  }
  std::vector<Token> encoded;
  std::int64_t n_dropped = 0;
  const bool is_byte_level = pre_tokenizer_.is_byte_level();
  const bool is_spelled = !is_byte_level || pre_tokenizer_.spells_bytes();
  const std::string letters = is_spelled ? "" : to_byte_alphabet(word);
  model_.encode(is_spelled ? word : letters, encoded, [&](std::string_view character) {
    n_dropped += is_byte_level ? 1 : std::ssize(character);
  });
  tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  n_dropped_bytes_ += n_dropped;
  if (n_dropped == 0) cache_.put(word, std::move(encoded));
}

std::string TokenizerJson::bytes_of(Token token) const {
  const auto added = added_text_.find(token);
  // Byte-level tokenizers write added tokens as they are, not in the byte alphabet.
  if (added != added_text_.end() && token_text_.is_byte_level()) return added->second;
  const std::lock_guard lock(mutex_);
  return token_text_.bytes_of(added == added_text_.end() ? vocabulary_.content(token)
                                                         : added->second);
}

std::string TokenizerJson::opening_bytes_of(Token token) const {
  if (token_text_.is_byte_level()) return bytes_of(token);
  const auto added = added_text_.find(token);
  const std::lock_guard lock(mutex_);
  return token_text_.opening_bytes_of(added == added_text_.end() ? vocabulary_.content(token)
                                                                 : added->second);
}

bool TokenizerJson::is_special(Token token) const {
  return token >= 0 && static_cast<std::size_t>(token) < is_special_.size() &&
         is_special_[static_cast<std::size_t>(token)];
}

}  // namespace starattn
