// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <map>
#include <mutex>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe_model.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"
#include "tokenizer/word_cache.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxModelBytes = std::size_t{256} << 20;
constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;
constexpr const char* kUnknownText = " \xe2\x81\x87 ";  // " ⁇ ", as the library decodes it

// Lines of a token in base64 and its rank: "IQ== 0".
bool is_tiktoken(std::string_view bytes) {
  constexpr std::string_view kBase64 =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
  const std::string_view line = bytes.substr(0, bytes.find('\n'));
  const std::size_t blank = line.find(' ');
  if (blank == std::string_view::npos || blank == 0 || blank + 1 == line.size()) return false;
  return line.find_first_not_of(kBase64) == blank &&
         line.find_first_not_of("0123456789\r", blank + 1) == std::string_view::npos;
}

class SentencePieceModel : public Tokenizer {
 public:
  SentencePieceModel(const std::string& path, const TokenizerConfig& config,
                     std::int64_t n_embeddings)
      : path_(path) {
    const std::string bytes = read_file(path, kMaxModelBytes);
    if (is_tiktoken(bytes)) {
      fail(Exit::bad_data,
           "{} is a vocabulary for tiktoken, as Meta publishes Llama 3, not a SentencePiece model. "
           "Take tokenizer.json from the model's folder in the format of Hugging Face",
           path);
    }
    const auto status = processor_.LoadFromSerializedProto(bytes);
    if (!status.ok() || processor_.GetPieceSize() > Vocabulary::kMaxSize) {
      fail(Exit::bad_data, "{}: not a SentencePiece model of at most {} tokens: {}", path,
           Vocabulary::kMaxSize, status.ToString());
    }
    n_pieces_ = processor_.GetPieceSize();
    add_control_tokens();
    std::vector<AddedToken> added = config.added_tokens;
    drop_beyond(n_embeddings, added, path);
    for (const AddedToken& token : added) add_token(token);
    if (config.add_bos_token.value_or(true) && processor_.bos_id() >= 0) {
      prefix_.push_back(processor_.bos_id());
    }
    puts_space_ = puts_space_in_front();
    words_are_apart_ = puts_space_ && scores_are_ranks() && no_piece_spans_words();
  }

  std::vector<Token> encode(std::string_view text, SpecialTokens special) const override {
    std::size_t bad = 0;
    if (text.size() > kMaxTextBytes) {
      fail(Exit::bad_data, "the text has {} bytes, at most {} are encoded at once", text.size(),
           kMaxTextBytes);
    }
    if (!is_utf8(text, &bad)) {
      fail(Exit::bad_data, "the text is not UTF-8: byte {} of {}", bad, text.size());
    }
    const std::lock_guard lock(mutex_);
    std::vector<Token> tokens;
    added_.cut(
        text, special, [&](std::string_view part) { encode_words(part, tokens); },
        [&](const AddedToken& token) { tokens.push_back(token.id); });
    return tokens;
  }

  std::string bytes_of(Token token) const override {
    if (const auto added = added_by_id_.find(token); added != added_by_id_.end()) {
      return added->second.content;
    }
    if (!is_piece(token)) return "";
    const std::string& piece = processor_.IdToPiece(token);
    if (processor_.IsUnknown(token)) return kUnknownText;
    if (processor_.IsByte(token)) return {static_cast<char>(byte_of_token(piece).value_or('?'))};
    std::string text;
    for (std::size_t at = 0; at < piece.size();) {
      const bool is_mark = std::string_view(piece).substr(at).starts_with(kMetaspace);
      text += is_mark ? ' ' : piece[at];
      at += is_mark ? kMetaspace.size() : 1;
    }
    return text;
  }

  std::string opening_bytes_of(Token token) const override {
    std::string bytes = bytes_of(token);
    const bool is_text = is_piece(token) && !processor_.IsUnknown(token) && !is_special(token);
    if (puts_space_ && is_text && bytes.starts_with(' ')) bytes.erase(0, 1);
    return bytes;
  }

  std::int64_t vocab_size() const override {
    return added_by_id_.empty() ? n_pieces_ : std::max(n_pieces_, added_by_id_.rbegin()->first + 1);
  }
  bool is_special(Token token) const override {
    const auto added = added_by_id_.find(token);
    return added != added_by_id_.end() && added->second.special;
  }
  Token find_token(std::string_view content) const override {
    for (const auto& [id, token] : added_by_id_) {
      if (token.content == content) return id;
    }
    const Token id = processor_.PieceToId({content.data(), content.size()});
    return is_piece(id) && processor_.IdToPiece(id) == content ? id : -1;
  }
  const std::vector<Token>& prefix() const override { return prefix_; }

 private:
  bool is_piece(Token token) const { return token >= 0 && token < n_pieces_; }

  bool puts_space_in_front() const {
    std::vector<std::string> pieces;
    return processor_.Encode("a", &pieces).ok() && !pieces.empty() &&
           pieces[0].starts_with(kMetaspace);
  }

  // BPE models score a piece by its rank, unigram models by its logarithmic probability.
  bool scores_are_ranks() const {
    for (Token id = 0; id < n_pieces_; ++id) {
      if (processor_.GetScore(id) != std::nearbyint(processor_.GetScore(id))) return false;
    }
    return true;
  }

  // ▁ is a piece, and none has it behind another character.
  bool no_piece_spans_words() const {
    for (Token id = 0; id < n_pieces_; ++id) {
      std::string_view piece = processor_.IdToPiece(id);
      while (piece.starts_with(kMetaspace)) piece.remove_prefix(kMetaspace.size());
      if (piece.find(kMetaspace) != std::string_view::npos) return false;
    }
    return find_token(kMetaspace) >= 0;
  }

  // Word by word where that gives the same tokens, because the library slows down with length
  // (7 s for 4 MB) and words come again. The space in front of a word is left out: the library
  // puts it back.
  void encode_words(std::string_view text, std::vector<Token>& tokens) const {
    const auto is_plain = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    std::size_t begin = 0;
    for (std::size_t at = 1; words_are_apart_ && at + 1 < text.size(); ++at) {
      if (text[at] != ' ' || !is_plain(text[at - 1]) || !is_plain(text[at + 1])) continue;
      encode_word(text.substr(begin, at - begin), tokens);
      begin = at + 1;
    }
    encode_word(text.substr(begin), tokens);
  }

  void encode_word(std::string_view word, std::vector<Token>& tokens) const {
    const std::vector<Token>* known = cache_.find(word);
    std::vector<Token> encoded;
    if (!known) {
      const auto status = processor_.Encode({word.data(), word.size()}, &encoded);
      if (!status.ok()) fail(Exit::bad_data, "{}: {}", path_, status.ToString());
    }
    const std::vector<Token>& ids = known ? *known : encoded;
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    if (!known) cache_.put(word, std::move(encoded));
  }

  // <s>, </s> and the like: libsentencepiece never finds them in a text by itself.
  void add_control_tokens() {
    for (Token id = 0; id < n_pieces_; ++id) {
      if (!processor_.IsControl(id)) continue;
      AddedToken token;
      token.id = id;
      token.content = processor_.IdToPiece(id);
      token.special = true;
      add_token(token);
    }
  }

  void add_token(const AddedToken& token) {
    if (is_piece(token.id) && processor_.IdToPiece(token.id) != token.content) {
      fail(Exit::bad_data, "{}: token {} is '{}' here and '{}' among the added tokens", path_,
           token.id, processor_.IdToPiece(token.id), token.content);
    }
    if (token.content.empty() || token.content.size() > Vocabulary::kMaxTokenBytes) {
      fail(Exit::bad_data, "{}: added token {}: expected 1 to {} bytes, got {}", path_, token.id,
           Vocabulary::kMaxTokenBytes, token.content.size());
    }
    if (added_by_id_.emplace(token.id, token).second) added_.add(token);
  }

  std::string path_;
  sentencepiece::SentencePieceProcessor processor_;
  Token n_pieces_ = 0;
  AddedTokens added_;
  std::map<Token, AddedToken> added_by_id_;
  std::vector<Token> prefix_;
  bool puts_space_ = false;       // in front of every text
  bool words_are_apart_ = false;  // no token reaches from one word into the next

  mutable std::mutex mutex_;
  mutable WordCache cache_;
};

}  // namespace

std::unique_ptr<Tokenizer> open_sentencepiece(const std::string& path,
                                              const TokenizerConfig& config,
                                              std::int64_t n_embeddings) {
  return std::make_unique<SentencePieceModel>(path, config, n_embeddings);
}

}  // namespace starattn
