// SPDX-License-Identifier: Apache-2.0
#include "model/sentencepiece_model.h"

#include <sentencepiece_processor.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "model/added_tokens.h"

namespace starattn {
namespace {

class SentencePieceModel : public Tokenizer {
 public:
  SentencePieceModel(const std::string& path, const std::string& config_path) {
    const std::string bytes = read_file(path, std::size_t{256} << 20);
    const auto status = processor_.LoadFromSerializedProto(bytes);
    if (!status.ok())
      fail(Exit::bad_data, "{}: not a SentencePiece model: {}", path, status.ToString());
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      if (!processor_.IsControl(id)) continue;
      AddedToken token;
      token.id = id;
      token.content = processor_.IdToPiece(id);
      token.special = true;
      controls_.add(token);
    }
    bool adds_bos = true;
    if (::access(config_path.c_str(), F_OK) == 0) {
      const Json config = read_json_file(config_path);
      adds_bos = JsonObject(config, config_path).find_bool("add_bos_token").value_or(true);
    }
    if (adds_bos && processor_.bos_id() >= 0) prefix_.push_back(processor_.bos_id());
  }

  std::vector<Token> encode(std::string_view text, SpecialTokens special) const override {
    std::size_t bad = 0;
    if (!is_utf8(text, &bad))
      fail(Exit::bad_data, "the text is not UTF-8: byte {} of {}", bad, text.size());
    std::vector<Token> tokens;
    controls_.cut(
        text, [&](const AddedToken&) { return special == SpecialTokens::parse; },
        [&](std::string_view piece) {
          std::vector<int> ids;
          const auto status = processor_.Encode({piece.data(), piece.size()}, &ids);
          if (!status.ok()) fail(Exit::bad_data, "SentencePiece: {}", status.ToString());
          tokens.insert(tokens.end(), ids.begin(), ids.end());
        },
        [&](const AddedToken& token) { tokens.push_back(token.id); });
    return tokens;
  }

  std::string bytes_of(Token token) const override {
    if (token < 0 || token >= processor_.GetPieceSize()) return "";
    const std::string& piece = processor_.IdToPiece(token);
    if (processor_.IsByte(token))
      return {static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16))};
    std::string text;
    for (std::size_t at = 0; at < piece.size();) {
      const bool is_mark = piece.compare(at, 3, "\xe2\x96\x81") == 0;
      text += is_mark ? ' ' : piece[at];
      at += is_mark ? 3 : 1;
    }
    return text;
  }

  std::string decode(const std::vector<Token>& tokens, bool skip_special) const override {
    std::string bytes;
    for (const Token token : tokens) {
      if (!skip_special || !is_special(token)) bytes += bytes_of(token);
    }
    if (bytes.starts_with(' ')) bytes.erase(0, 1);
    return to_valid_utf8(bytes);
  }

  std::int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  bool is_special(Token token) const override {
    return token >= 0 && token < processor_.GetPieceSize() && processor_.IsControl(token);
  }
  Token find_token(std::string_view content) const override {
    const int id = processor_.PieceToId({content.data(), content.size()});
    return processor_.IsUnknown(id) && processor_.IdToPiece(id) != content ? -1 : id;
  }
  const std::vector<Token>& prefix() const override { return prefix_; }
  bool strips_first_space() const override { return true; }

 private:
  sentencepiece::SentencePieceProcessor processor_;
  AddedTokens controls_;
  std::vector<Token> prefix_;
};

}  // namespace

std::unique_ptr<Tokenizer> open_sentencepiece(const std::string& path,
                                              const std::string& config_path) {
  return std::make_unique<SentencePieceModel>(path, config_path);
}

}  // namespace starattn
