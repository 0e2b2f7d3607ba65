// SPDX-License-Identifier: Apache-2.0
// The merges of a BPE model: which two neighbours become which token, and how early.
#pragma once

#include <cstdint>
#include <vector>

#include "base/next_token.h"

namespace starattn {

struct BpeMerge {
  std::uint32_t rank;  // lower merges first
  Token merged;
};

// A hash table in one array: merging asks it twice for every step.
class MergeTable {
 public:
  void reserve(std::size_t n_merges);                   // once, before the first add
  void add(Token left, Token right, BpeMerge merge);    // a pair given again takes the later merge
  const BpeMerge* find(Token left, Token right) const;  // nullptr when the two do not merge

 private:
  struct Slot {
    Token left = -1;  // -1: free
    Token right = -1;
    BpeMerge merge{};
  };
  std::size_t slot_of(Token left, Token right) const;  // where the pair is, or would go

  std::vector<Slot> slots_;  // a power of two, at most half of them taken
};

}  // namespace starattn
