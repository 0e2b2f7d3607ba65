// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/bpe.h"

#include <algorithm>

namespace starattn {
namespace {

constexpr std::int32_t kNone = -1;
constexpr Token kGone = -1;

// A link of the list of symbols. A merge keeps the left one and drops the right one.
struct Symbol {
  Token token;
  std::int32_t previous;
  std::int32_t next;
};

// A merge that was possible when it was queued.
struct Candidate {
  std::uint32_t rank;
  std::int32_t left;
  Token merged;
};

// std heaps keep the largest on top: "less" is the one that merges later.
bool merges_later(const Candidate& a, const Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

class Word {
 public:
  Word(const MergeTable& merges, const std::vector<Token>& symbols) : merges_(merges) {
    const auto n = static_cast<std::int32_t>(symbols.size());
    symbols_.reserve(symbols.size());
    for (std::int32_t i = 0; i < n; ++i) {
      symbols_.push_back({symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < n ? i + 1 : kNone});
    }
    for (std::int32_t i = 0; i < n; ++i) {
      if (const BpeMerge* merge = merge_at(i)) queue_.push_back({merge->rank, i, merge->merged});
    }
    std::make_heap(queue_.begin(), queue_.end(), merges_later);
  }

  void merge_all() {
    while (!queue_.empty()) {
      const Candidate best = pop();
      // Neighbours may have merged since: the two must still give this token.
      const BpeMerge* merge = merge_at(best.left);
      if (!merge || merge->merged != best.merged) continue;
      join(best.left, best.merged);
      consider(at(best.left).previous);
      consider(best.left);
    }
  }

  void write(std::vector<Token>& symbols) const {
    symbols.clear();
    for (const Symbol& symbol : symbols_) {
      if (symbol.token != kGone) symbols.push_back(symbol.token);
    }
  }

 private:
  Symbol& at(std::int32_t i) { return symbols_[static_cast<std::size_t>(i)]; }

  // The merge of symbol i with the one behind it, if there is one.
  const BpeMerge* merge_at(std::int32_t i) {
    if (i == kNone || at(i).token == kGone || at(i).next == kNone) return nullptr;
    return merges_.find(at(i).token, at(at(i).next).token);
  }

  void join(std::int32_t left, Token merged) {
    Symbol& right = at(at(left).next);
    at(left).token = merged;
    at(left).next = right.next;
    if (right.next != kNone) at(right.next).previous = left;
    right.token = kGone;
  }

  void consider(std::int32_t left) {
    if (const BpeMerge* merge = merge_at(left)) {
      queue_.push_back({merge->rank, left, merge->merged});
      std::push_heap(queue_.begin(), queue_.end(), merges_later);
    }
  }

  Candidate pop() {
    std::pop_heap(queue_.begin(), queue_.end(), merges_later);
    const Candidate best = queue_.back();
    queue_.pop_back();
    return best;
  }

  const MergeTable& merges_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> queue_;
};

}  // namespace

void merge_symbols(const MergeTable& merges, std::vector<Token>& symbols) {
  if (symbols.size() < 2) return;
  Word word(merges, symbols);
  word.merge_all();
  word.write(symbols);
}

}  // namespace starattn
