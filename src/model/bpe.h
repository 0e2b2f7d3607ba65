// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one word (Sennrich et al., arXiv 1508.07909): neighbours merge in the order
// in which the merges were learned, leftmost first. O(n log n) in the word's length.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/config.h"

namespace starattn {

class Bpe {
 public:
  // A merge of two tokens into one; earlier merges win.
  void add_merge(Token left, Token right, Token merged, std::int32_t rank);

  // Merges the symbols in place until nothing merges any more.
  void merge(std::vector<Token>& symbols) const;

 private:
  struct Merge {
    std::int32_t rank;
    Token merged;
  };
  const Merge* find(Token left, Token right) const;

  std::unordered_map<std::uint64_t, Merge> merges_;
};

}  // namespace starattn
