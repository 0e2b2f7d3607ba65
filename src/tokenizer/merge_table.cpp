// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/merge_table.h"

#include <bit>

#include "base/error.h"

namespace starattn {

void MergeTable::reserve(std::size_t n_merges) {
  STARATTN_CHECK(slots_.empty());
  slots_.resize(std::bit_ceil(2 * n_merges + 2));
}

void MergeTable::add(Token left, Token right, BpeMerge merge) {
  slots_[slot_of(left, right)] = {left, right, merge};
}

const BpeMerge* MergeTable::find(Token left, Token right) const {
  const Slot& slot = slots_[slot_of(left, right)];
  return slot.left < 0 ? nullptr : &slot.merge;
}

std::size_t MergeTable::slot_of(Token left, Token right) const {
  const auto pair = static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  const std::uint64_t mixed = (pair ^ pair >> 29) * 0x9e3779b97f4a7c15U;
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = static_cast<std::size_t>(mixed >> 32) & mask;
  while (slots_[i].left >= 0 && (slots_[i].left != left || slots_[i].right != right)) {
    i = (i + 1) & mask;
  }
  return i;
}

}  // namespace starattn
