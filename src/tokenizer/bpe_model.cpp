// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/bpe_model.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxMerges = std::size_t{1} << 23;

void refuse_variants(const JsonObject& json) {
  const std::string type = json.find_string("type").value_or(json.has("merges") ? "BPE" : "none");
  if (type != "BPE") unsupported(json.where(), "model type '" + type + "'", "BPE is");
  if (json.find_number("dropout").value_or(0.0) != 0.0) {
    unsupported(json.where(), "BPE dropout", "null or 0 is: encoding must not be random");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const std::string value = json.find_string(key).value_or("");
    if (!value.empty()) {
      unsupported(json.where(), fmt::format("{} '{}'", key, value), "an empty one is");
    }
  }
}

// "a b" or ["a", "b"]
std::pair<std::string, std::string> read_merge(const Json& merge, std::size_t i,
                                               const std::string& where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  fail(Exit::bad_data, "{}: merges[{}]: expected \"a b\" or [\"a\", \"b\"], got {}", where, i,
       to_line(merge).substr(0, 80));
}

}  // namespace

std::optional<unsigned char> byte_of_token(std::string_view content) {
  if (content.size() != 6 || !content.starts_with("<0x") || content[5] != '>') return std::nullopt;
  unsigned char byte = 0;
  const char* end = content.data() + 5;
  const auto result = std::from_chars(content.data() + 3, end, byte, 16);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return byte;
}

BpeModel::BpeModel(const JsonObject& json) {
  refuse_variants(json);
  byte_fallback_ = json.find_bool("byte_fallback").value_or(false);
  fuse_unknown_ = json.find_bool("fuse_unk").value_or(false);
  ignore_merges_ = json.find_bool("ignore_merges").value_or(false);
  vocabulary_.read(json.get_object("vocab"));
  if (const auto unknown = json.find_string("unk_token")) {
    unknown_ = vocabulary_.find(*unknown);
    if (unknown_ < 0) {
      fail(Exit::bad_data, "{}: unk_token '{}' is not in the vocabulary", json.where(), *unknown);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    byte_tokens_[static_cast<std::size_t>(byte)] =
        vocabulary_.find(fmt::format("<0x{:02X}>", byte));
  }
  read_merges(json);
}

void BpeModel::read_merges(const JsonObject& json) {
  const Json& merges = json.get("merges");
  if (!merges.is_array() || merges.size() > kMaxMerges) {
    fail(Exit::bad_data, "{}: merges: expected an array of at most {}", json.where(), kMaxMerges);
  }
  merges_.reserve(merges.size());
  pairs_.reserve(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const auto [left, right] = read_merge(merges[i], i, json.where());
    const auto find = [&, rank = i](const std::string& content) {
      const Token token = vocabulary_.find(content);
      if (token < 0) {
        fail(Exit::bad_data, "{}: merges[{}] {}: '{}' is not in the vocabulary", json.where(), rank,
             to_line(merges[rank]).substr(0, 80), content);
      }
      return token;
    };
    pairs_.emplace_back(find(left), find(right));
    merges_.add(pairs_.back().first, pairs_.back().second,
                {static_cast<std::uint32_t>(i), find(left + right)});
  }
}

bool BpeModel::is_byte_or_unknown(Token token) const {
  return token == unknown_ ||
         std::find(byte_tokens_.begin(), byte_tokens_.end(), token) != byte_tokens_.end();
}

void BpeModel::encode(std::string_view word, std::vector<Token>& tokens,
                      FunctionRef<void(std::string_view)> dropped) const {
  if (ignore_merges_) {
    if (const Token whole = vocabulary_.find(word); whole >= 0) {
      tokens.push_back(whole);
      return;
    }
  }
  std::vector<Token> symbols = first_symbols(word, dropped);
  merge_symbols(merges_, symbols);
  tokens.insert(tokens.end(), symbols.begin(), symbols.end());
}

// One token a character; its bytes' tokens where the vocabulary lacks it; else the unknown token.
// An unknown token waits for the next known character, so bytes in between go before it: Hugging
// Face's order.
std::vector<Token> BpeModel::first_symbols(std::string_view word,
                                           FunctionRef<void(std::string_view)> dropped) const {
  std::vector<Token> symbols;
  symbols.reserve(word.size());
  bool unknown_waits = false;
  for (std::size_t at = 0; at < word.size();) {
    const std::string_view character = word.substr(at, character_bytes(word, at));
    at += character.size();
    if (const Token token = vocabulary_.find(character); token >= 0) {
      if (unknown_waits) symbols.push_back(unknown_);
      unknown_waits = false;
      symbols.push_back(token);
    } else if (append_bytes(character, symbols)) {
      continue;
    } else if (unknown_ < 0) {
      dropped(character);
    } else {
      if (unknown_waits && !fuse_unknown_) symbols.push_back(unknown_);
      unknown_waits = true;
    }
  }
  if (unknown_waits) symbols.push_back(unknown_);
  return symbols;
}

// All of its bytes, or none and false.
bool BpeModel::append_bytes(std::string_view character, std::vector<Token>& symbols) const {
  const auto token_of = [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; };
  if (!byte_fallback_ || std::any_of(character.begin(), character.end(),
                                     [&](char byte) { return token_of(byte) < 0; })) {
    return false;
  }
  for (const char byte : character) symbols.push_back(token_of(byte));
  return true;
}

}  // namespace starattn
