// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/token_text.h"

#include "base/error.h"
#include "tokenizer/bpe_model.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

std::string replace_all(const std::string& text, const Pattern& pattern, const std::string& by) {
  std::string result;
  std::size_t done = 0;
  pattern.each_match(text, [&](std::size_t begin, std::size_t end) {
    result.append(text, done, begin - done).append(by);
    done = end;
  });
  return result.append(text, done);
}

}  // namespace

TokenText::TokenText(const JsonObject& tokenizer, bool is_byte_level) {
  if (tokenizer.has("decoder")) {
    add(tokenizer.get_object("decoder"));
  } else if (is_byte_level) {
    is_byte_level_ = true;
  } else {
    unsupported(tokenizer.where(), "a missing decoder", "only ByteLevel tokenizers need none");
  }
}

void TokenText::add(const JsonObject& json) {
  const std::string type = json.get_string("type");
  if (type == "Sequence") {
    for (const Json& step : json.get("decoders")) add({step, json.where()});
  } else if (type == "ByteLevel") {
    is_byte_level_ = true;
  } else if (type == "Replace") {
    replacements_.emplace_back(Pattern::read(json, "pattern"), json.get_string("content"));
  } else if (type == "ByteFallback") {
    byte_fallback_ = true;
  } else if (type == "Fuse") {
    is_fused_ = true;
  } else if (type == "Strip") {
    add_strip(json);
  } else if (type == "Metaspace") {
    metaspace_ = json.find_string("replacement").value_or(std::string(kMetaspace));
    replacements_.emplace_back(Pattern::literal(metaspace_, json.where()), " ");
    const bool adds = json.find_bool("add_prefix_space").value_or(true);
    const auto scheme = json.find_string("prepend_scheme").value_or(adds ? "always" : "never");
    if (scheme != "never") opening_ = Opening::without_metaspaces;
  } else {
    unsupported(json.where(), "decoder '" + type + "'",
                "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace and Sequence are");
  }
}

// Only as it is used: one space, at the beginning of the whole text.
void TokenText::add_strip(const JsonObject& json) {
  const auto start = json.get_int("start", 0, INT32_MAX);
  const auto stop = json.get_int("stop", 0, INT32_MAX);
  if (!is_fused_ || json.get_string("content") != " " || start > 1 || stop != 0) {
    unsupported(json.where(), "this decoder 'Strip'", "one space at the start, behind Fuse, is");
  }
  if (start == 1) opening_ = Opening::without_space;
}

std::string TokenText::bytes_of(const std::string& content) const {
  if (is_byte_level_) return from_byte_alphabet(content).value_or(content);
  if (byte_fallback_) {
    if (const auto byte = byte_of_token(content)) return {static_cast<char>(*byte)};
  }
  std::string text = content;
  for (const auto& [pattern, by] : replacements_) text = replace_all(text, pattern, by);
  return text;
}

std::string TokenText::opening_bytes_of(const std::string& content) const {
  if (opening_ == Opening::without_metaspaces) {
    std::string text = content;
    for (std::size_t at = text.find(metaspace_); at != std::string::npos;
         at = text.find(metaspace_)) {
      text.erase(at, metaspace_.size());
    }
    return text == content ? bytes_of(content) : text;
  }
  std::string bytes = bytes_of(content);
  if (opening_ == Opening::without_space && bytes.starts_with(' ')) bytes.erase(0, 1);
  return bytes;
}

}  // namespace starattn
