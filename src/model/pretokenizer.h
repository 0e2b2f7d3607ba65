// SPDX-License-Identifier: Apache-2.0
// What happens to text before BPE: normalizers change it, pre-tokenizers cut it into words.
// Patterns are the tokenizer's own and run through PCRE2.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace starattn {

// A compiled pattern: a regular expression, or a plain string.
class Pattern {
 public:
  static Pattern regex(const std::string& expression, const std::string& where);
  static Pattern literal(const std::string& text);

  // The non-empty matches in order, as [begin, end) byte offsets. The text must be UTF-8.
  // Throws Error(bad_data) when PCRE2 gives up.
  void each_match(std::string_view text,
                  const std::function<void(std::size_t begin, std::size_t end)>& found) const;

 private:
  std::string literal_;
  std::shared_ptr<void> code_;  // pcre2_code
};

// {"Regex": "..."} or {"String": "..."}
Pattern read_pattern(const JsonObject& json, const char* key);

// Text -> text. `is_first`: the piece starts the whole text.
using Normalizer = std::function<std::string(std::string text)>;
std::vector<Normalizer> read_normalizers(const JsonObject& tokenizer);

// One word -> words, in place.
using Words = std::vector<std::string>;
using PreTokenizer = std::function<Words(std::string word, bool is_first)>;
struct PreTokenizers {
  std::vector<PreTokenizer> steps;
  bool byte_level = false;  // words are bytes, mapped one by one to the vocabulary
};
PreTokenizers read_pre_tokenizers(const JsonObject& tokenizer);

}  // namespace starattn
