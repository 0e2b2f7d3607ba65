// SPDX-License-Identifier: Apache-2.0
// What changes a text before it is cut into words: Unicode normal forms, and the replacements by
// which SentencePiece-style tokenizers turn spaces into ▁.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"

namespace starattn {

class Normalizer {
 public:
  // The "normalizer" of a tokenizer.json; none changes nothing.
  // Throws Error(bad_data), UnsupportedTokenizer naming the type.
  explicit Normalizer(const JsonObject& tokenizer);

  std::string operator()(std::string text) const;

 private:
  void add(const JsonObject& json);

  using Step = std::function<std::string(std::string text, std::size_t max_bytes)>;
  std::vector<Step> steps_;
};

enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normalize(std::string text, NormalForm form);  // valid UTF-8 in and out

}  // namespace starattn
