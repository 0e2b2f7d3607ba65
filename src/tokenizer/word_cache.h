// SPDX-License-Identifier: Apache-2.0
// Remembers the tokens of words seen before. Bounded: each word has one place, and a newcomer takes
// it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/next_token.h"

namespace starattn {

class WordCache {
 public:
  static constexpr std::size_t kMaxWordBytes = 64;

  // nullptr when the word is not remembered.
  const std::vector<Token>* find(std::string_view word) const {
    const Slot& slot = slots_[place_of(word)];
    return slot.word == word ? &slot.tokens : nullptr;
  }
  void put(std::string_view word, std::vector<Token> tokens) {
    if (word.size() <= kMaxWordBytes)
      slots_[place_of(word)] = {std::string(word), std::move(tokens)};
  }

 private:
  struct Slot {
    std::string word;  // never the empty one
    std::vector<Token> tokens;
  };
  std::size_t place_of(std::string_view word) const {
    return std::hash<std::string_view>{}(word) % slots_.size();
  }

  std::vector<Slot> slots_ = std::vector<Slot>(std::size_t{1} << 16);
};

}  // namespace starattn
