// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer_json.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxVocabulary = std::size_t{1} << 22;
constexpr std::size_t kCachedWordBytes = 64;
constexpr std::size_t kMaxCachedWords = std::size_t{1} << 18;
constexpr const char* kMetaspace = "\xe2\x96\x81";  // ▁

// GPT-2's printable stand-ins for bytes: code point -> byte. Printable Latin-1 stands for itself,
// the other bytes follow from U+0100 on.
const std::unordered_map<std::string, char>& bytes_by_character() {
  static const auto kMap = [] {
    std::unordered_map<std::string, char> map;
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      const int point = printable ? byte : next++;
      std::string text;
      if (point < 0x80) {
        text = static_cast<char>(point);
      } else {
        text = {static_cast<char>(0xc0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3f))};
      }
      map.emplace(text, static_cast<char>(byte));
    }
    return map;
  }();
  return kMap;
}

std::size_t character_bytes(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t n = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  return std::min(n, text.size() - at);
}

// "Ġthe" -> " the"; the text itself where a character stands for no byte.
std::string to_bytes(const std::string& text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = character_bytes(text, at);
    const auto it = bytes_by_character().find(text.substr(at, n));
    if (it == bytes_by_character().end()) return text;
    bytes += it->second;
    at += n;
  }
  return bytes;
}

// "<0x0A>" -> 10, -1 for anything else.
int byte_of_fallback(const std::string& piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  const int high = digit(piece[3]);
  const int low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

TokenizerJson::TokenizerJson(const std::string& path) : where_(path) {
  const Json file = read_json_file(path, {std::size_t{256} << 20, 32});
  const JsonObject json(file, path);
  const JsonObject model = json.get_object("model");
  const std::string type = model.find_string("type").value_or(model.has("merges") ? "BPE" : "");
  if (type != "BPE")
    fail(Exit::bad_data, "{}: tokenizer model '{}' is not supported (BPE is)", path, type);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.find_string(key).value_or("").empty()) {
      fail(Exit::bad_data, "{}: '{}' is not supported", model.where(), key);
    }
  }
  byte_fallback_ = model.find_bool("byte_fallback").value_or(false);
  fuse_unknown_ = model.find_bool("fuse_unk").value_or(false);
  ignore_merges_ = model.find_bool("ignore_merges").value_or(false);
  normalizers_ = read_normalizers(json);
  pre_tokenizers_ = read_pre_tokenizers(json);
  read_vocabulary(model);
  read_merges(model);
  read_added_tokens(json);
  read_prefix(json);
  read_decoder(json);
}

void TokenizerJson::read_vocabulary(const JsonObject& model) {
  const JsonObject vocabulary = model.get_object("vocab");
  std::fill(std::begin(byte_tokens_), std::end(byte_tokens_), -1);
  for (const auto& [text, id_json] : vocabulary.json().items()) {
    const std::int64_t id =
        id_json.is_number_unsigned() && id_json < kMaxVocabulary ? id_json.get<std::int64_t>() : -1;
    if (id < 0)
      fail(Exit::bad_data, "{}: token '{}': expected an id below {}", vocabulary.where(), text,
           kMaxVocabulary);
    if (pieces_.size() <= static_cast<std::size_t>(id))
      pieces_.resize(static_cast<std::size_t>(id) + 1);
    const std::string piece = pre_tokenizers_.byte_level ? to_bytes(text) : text;
    vocabulary_.emplace(piece, static_cast<Token>(id));
    pieces_[static_cast<std::size_t>(id)] = piece;
    const int byte = pre_tokenizers_.byte_level
                         ? (piece.size() == 1 ? static_cast<unsigned char>(piece[0]) : -1)
                         : byte_of_fallback(text);
    if (byte >= 0) byte_tokens_[byte] = static_cast<Token>(id);
  }
  if (const auto unknown = model.find_string("unk_token")) {
    const auto it = vocabulary_.find(*unknown);
    if (it != vocabulary_.end()) unknown_ = it->second;
  }
}

void TokenizerJson::read_merges(const JsonObject& model) {
  const Json& merges = model.get("merges");
  if (!merges.is_array()) fail(Exit::bad_data, "{}: merges: expected an array", model.where());
  std::int32_t rank = 0;
  for (const Json& merge : merges) {
    std::string left;
    std::string right;
    if (merge.is_string()) {  // "a b"
      const auto text = merge.get<std::string>();
      const std::size_t space = text.find(' ', 1);
      if (space != std::string::npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    }
    if (left.empty() || right.empty()) {
      fail(Exit::bad_data, "{}: merge {}: expected \"a b\" or [\"a\", \"b\"], got {}", where_, rank,
           to_line(merge));
    }
    if (pre_tokenizers_.byte_level) {
      left = to_bytes(left);
      right = to_bytes(right);
    }
    const auto find = [&](const std::string& piece) {
      const auto it = vocabulary_.find(piece);
      if (it == vocabulary_.end()) {
        fail(Exit::bad_data, "{}: merge {} ({}): '{}' is not in the vocabulary", where_, rank,
             to_line(merge), piece);
      }
      return it->second;
    };
    bpe_.add_merge(find(left), find(right), find(left + right), rank);
    ++rank;
  }
}

void TokenizerJson::read_added_tokens(const JsonObject& json) {
  if (!json.has("added_tokens")) return;
  for (const Json& entry : json.get("added_tokens")) {
    const JsonObject token(entry, where_ + ": added token");
    AddedToken added;
    added.id = static_cast<Token>(token.get_int("id", 0, kMaxVocabulary));
    added.content = token.get_string("content");
    if (added.content.empty())
      fail(Exit::bad_data, "{}: added token {}: the content is empty", where_, added.id);
    added.special = token.find_bool("special").value_or(false);
    added.normalized = token.find_bool("normalized").value_or(false);
    added.lstrip = token.find_bool("lstrip").value_or(false);
    added.rstrip = token.find_bool("rstrip").value_or(false);
    added.single_word = token.find_bool("single_word").value_or(false);
    if (pieces_.size() <= static_cast<std::size_t>(added.id))
      pieces_.resize(static_cast<std::size_t>(added.id) + 1);
    pieces_[static_cast<std::size_t>(added.id)] = added.content;
    added_is_special_[added.id] = added.special;
    added_.add(std::move(added));
  }
}

// TemplateProcessing: the special tokens in front of sequence A.
void TokenizerJson::read_prefix(const JsonObject& json) {
  const std::function<void(const JsonObject&)> read = [&](const JsonObject& processor) {
    const std::string type = processor.get_string("type");
    if (type == "Sequence") {
      for (const Json& step : processor.get("processors")) read({step, processor.where()});
    } else if (type == "TemplateProcessing") {
      for (const Json& item : processor.get("single")) {
        if (!item.is_object() || !item.contains("SpecialToken")) break;
        const std::string name =
            JsonObject(item["SpecialToken"], processor.where()).get_string("id");
        const Token id = find_token(name);
        if (id < 0)
          fail(Exit::bad_data, "{}: special token '{}' is not in the vocabulary", processor.where(),
               name);
        prefix_.push_back(id);
      }
    } else if (type != "ByteLevel") {
      fail(Exit::bad_data, "{}: post-processor '{}' is not supported", processor.where(), type);
    }
  };
  if (json.has("post_processor")) read(json.get_object("post_processor"));
}

// Byte-level pieces are text already. SentencePiece-style ones: ▁ is a space, and the text's first
// is dropped.
void TokenizerJson::read_decoder(const JsonObject& json) {
  if (pre_tokenizers_.byte_level) return;
  strips_first_space_ =
      json.has("decoder") && to_line(json.get("decoder")).find("Strip") != std::string::npos;
  if (json.has("decoder")) {
    const JsonObject decoder = json.get_object("decoder");
    strips_first_space_ |= decoder.get_string("type") == "Metaspace" &&
                           decoder.find_string("prepend_scheme").value_or("always") != "never";
  }
  const Pattern mark = Pattern::literal(kMetaspace);
  for (std::size_t id = 0; id < pieces_.size(); ++id) {
    if (added_is_special_.contains(static_cast<Token>(id))) continue;
    const int byte = byte_fallback_ ? byte_of_fallback(pieces_[id]) : -1;
    if (byte >= 0) {
      pieces_[id] = static_cast<char>(byte);
      continue;
    }
    std::string text;
    std::size_t last = 0;
    mark.each_match(pieces_[id], [&](std::size_t begin, std::size_t end) {
      text.append(pieces_[id], last, begin - last).append(" ");
      last = end;
    });
    pieces_[id] = text.append(pieces_[id], last);
  }
}

std::vector<Token> TokenizerJson::encode(std::string_view text, SpecialTokens special) const {
  std::size_t bad = 0;
  if (!is_utf8(text, &bad))
    fail(Exit::bad_data, "the text is not UTF-8: byte {} of {}", bad, text.size());
  std::vector<Token> tokens;
  const auto wanted = [&](const AddedToken& token) {
    return special == SpecialTokens::parse || !token.special;
  };
  bool is_first = true;
  const auto push = [&](const AddedToken& token) {
    tokens.push_back(token.id);
    is_first = false;
  };
  added_.cut(
      text, [&](const AddedToken& token) { return wanted(token) && !token.normalized; },
      [&](std::string_view piece) {
        std::string normalized(piece);
        for (const Normalizer& normalize : normalizers_)
          normalized = normalize(std::move(normalized));
        added_.cut(
            normalized, [&](const AddedToken& token) { return wanted(token) && token.normalized; },
            [&](std::string_view part) {
              encode_piece(part, is_first, tokens);
              is_first = false;
            },
            push);
      },
      push);
  return tokens;
}

void TokenizerJson::encode_piece(std::string_view text, bool is_first,
                                 std::vector<Token>& tokens) const {
  Words words = {std::string(text)};
  for (const PreTokenizer& step : pre_tokenizers_.steps) {
    Words cut;
    for (std::size_t i = 0; i < words.size(); ++i) {
      Words parts = step(std::move(words[i]), is_first && i == 0);
      cut.insert(cut.end(), std::make_move_iterator(parts.begin()),
                 std::make_move_iterator(parts.end()));
    }
    words = std::move(cut);
  }
  for (const std::string& word : words) encode_word(word, tokens);
}

void TokenizerJson::encode_word(const std::string& word, std::vector<Token>& tokens) const {
  if (word.empty()) return;
  if (ignore_merges_) {
    const auto whole = vocabulary_.find(word);
    if (whole != vocabulary_.end()) {
      tokens.push_back(whole->second);
      return;
    }
  }
  const bool cacheable = word.size() <= kCachedWordBytes;
  if (cacheable) {
    const auto cached = cache_.find(word);
    if (cached != cache_.end()) {
      tokens.insert(tokens.end(), cached->second.begin(), cached->second.end());
      return;
    }
  }
  std::vector<Token> symbols = first_symbols(word);
  bpe_.merge(symbols);
  tokens.insert(tokens.end(), symbols.begin(), symbols.end());
  if (!cacheable) return;
  if (cache_.size() >= kMaxCachedWords) cache_.clear();
  cache_.emplace(word, std::move(symbols));
}

// The tokens that merging starts from: bytes, or characters with bytes for those the vocabulary
// lacks.
std::vector<Token> TokenizerJson::first_symbols(const std::string& word) const {
  std::vector<Token> symbols;
  const auto byte_token = [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; };
  if (pre_tokenizers_.byte_level) {
    for (const char byte : word) {
      if (byte_token(byte) < 0) {
        fail(Exit::bad_data, "{}: the vocabulary has no token for byte {}", where_,
             static_cast<unsigned char>(byte));
      }
      symbols.push_back(byte_token(byte));
    }
    return symbols;
  }
  bool after_unknown = false;
  for (std::size_t at = 0; at < word.size();) {
    const std::string character = word.substr(at, character_bytes(word, at));
    at += character.size();
    const auto it = vocabulary_.find(character);
    const bool has_bytes =
        byte_fallback_ && std::all_of(character.begin(), character.end(),
                                      [&](char byte) { return byte_token(byte) >= 0; });
    if (it != vocabulary_.end()) {
      symbols.push_back(it->second);
    } else if (has_bytes) {
      for (const char byte : character) symbols.push_back(byte_token(byte));
    } else if (unknown_ >= 0 && !(fuse_unknown_ && after_unknown)) {
      symbols.push_back(unknown_);
    }
    after_unknown = it == vocabulary_.end() && !has_bytes;
  }
  return symbols;
}

std::string TokenizerJson::bytes_of(Token token) const {
  return token >= 0 && static_cast<std::size_t>(token) < pieces_.size()
             ? pieces_[static_cast<std::size_t>(token)]
             : "";
}

bool TokenizerJson::is_special(Token token) const {
  const auto it = added_is_special_.find(token);
  return it != added_is_special_.end() && it->second;
}

Token TokenizerJson::find_token(std::string_view content) const {
  for (const AddedToken& token : added_.all()) {
    if (token.content == content) return token.id;
  }
  const auto it = vocabulary_.find(std::string(content));
  return it == vocabulary_.end() ? -1 : it->second;
}

std::string TokenizerJson::decode(const std::vector<Token>& tokens, bool skip_special) const {
  std::string bytes;
  for (const Token token : tokens) {
    if (!skip_special || !is_special(token)) bytes += bytes_of(token);
  }
  if (strips_first_space_ && bytes.starts_with(' ')) bytes.erase(0, 1);
  return to_valid_utf8(bytes);
}

}  // namespace starattn
