// SPDX-License-Identifier: Apache-2.0
// From a token's content in the vocabulary to the bytes it stands for in a text, as the "decoder"
// of a tokenizer.json says.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "tokenizer/pattern.h"

namespace starattn {

class TokenText {
 public:
  // Throws Error(bad_data), UnsupportedTokenizer naming the decoder.
  TokenText(const JsonObject& tokenizer, bool is_byte_level);

  // "Ġthe" or "▁the" is " the"; "<0x0A>" is a line feed.
  std::string bytes_of(const std::string& content) const;
  // The same where the token opens a text: SentencePiece-style tokenizers put a space in front of
  // every text, and take it away again.
  std::string opening_bytes_of(const std::string& content) const;

  bool is_byte_level() const { return is_byte_level_; }

 private:
  enum class Opening { as_it_is, without_space, without_metaspaces };

  void add(const JsonObject& json);
  void add_strip(const JsonObject& json);

  bool is_byte_level_ = false;
  bool byte_fallback_ = false;
  bool is_fused_ = false;  // from here on a step sees the whole text
  std::vector<std::pair<Pattern, std::string>> replacements_;
  std::string metaspace_;  // the mark of a Metaspace decoder
  Opening opening_ = Opening::as_it_is;
};

}  // namespace starattn
