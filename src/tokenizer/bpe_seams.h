// SPDX-License-Identifier: Apache-2.0
// Where a long word can be cut without changing its tokens: between two characters that no merge
// ever joins. SentencePiece-style tokenizers take a whole document for one word; cut at its seams
// (in practice in front of every ▁) it becomes short words again, which a cache can remember.
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <unordered_set>

#include "base/function_ref.h"
#include "tokenizer/bpe_model.h"

namespace starattn {

class BpeSeams {
 public:
  explicit BpeSeams(const BpeModel& model);

  // Hands on the word in as many parts as it has, in order.
  void cut(std::string_view word, FunctionRef<void(std::string_view)> part) const;

 private:
  bool is_seam(char32_t left, char32_t right) const;
  void add_join(char32_t left, char32_t right);

  // No seams at all: whole words are looked up, or bytes take part in merges.
  bool is_whole_ = false;
  std::unordered_set<char32_t> characters_;        // that have a token of their own
  std::unordered_set<std::uint64_t> joins_;        // left << 32 | right
  std::bitset<std::size_t{1} << 14> ascii_seams_;  // left << 7 | right
};

}  // namespace starattn
