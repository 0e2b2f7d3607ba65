// SPDX-License-Identifier: Apache-2.0
#include "model/bpe.h"

#include <queue>
#include <tuple>

namespace starattn {
namespace {

std::uint64_t pair_key(Token left, Token right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) |
         static_cast<std::uint32_t>(right);
}

// A symbol in a doubly linked list; gone once it has merged into its left neighbour.
struct Symbol {
  Token token;
  std::int32_t previous;
  std::int32_t next;
};

// A merge that was possible when it was queued. It still is if both symbols are what they were.
struct Candidate {
  std::int32_t rank;
  std::int32_t left;
  std::int32_t right;
  Token left_token;
  Token right_token;
  Token merged;
  bool operator>(const Candidate& other) const {
    return std::tie(rank, left) > std::tie(other.rank, other.left);
  }
};

constexpr Token kGone = -1;

}  // namespace

void Bpe::add_merge(Token left, Token right, Token merged, std::int32_t rank) {
  merges_.try_emplace(pair_key(left, right), Merge{rank, merged});
}

const Bpe::Merge* Bpe::find(Token left, Token right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void Bpe::merge(std::vector<Token>& symbols) const {
  if (symbols.size() < 2) return;
  const auto n = static_cast<std::int32_t>(symbols.size());
  std::vector<Symbol> list;
  list.reserve(symbols.size());
  for (std::int32_t i = 0; i < n; ++i) {
    list.push_back({symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1});
  }
  const auto at = [&](std::int32_t i) -> Symbol& { return list[static_cast<std::size_t>(i)]; };

  std::vector<Candidate> storage;
  storage.reserve(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue({},
                                                                               std::move(storage));
  const auto consider = [&](std::int32_t left) {
    if (left < 0 || at(left).next < 0) return;
    const std::int32_t right = at(left).next;
    const Merge* merge = find(at(left).token, at(right).token);
    if (merge)
      queue.push({merge->rank, left, right, at(left).token, at(right).token, merge->merged});
  };
  for (std::int32_t i = 0; i + 1 < n; ++i) consider(i);

  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = at(best.left);
    if (left.token != best.left_token || left.next != best.right ||
        at(best.right).token != best.right_token)
      continue;
    left.token = best.merged;
    left.next = at(best.right).next;
    if (left.next >= 0) at(left.next).previous = best.left;
    at(best.right).token = kGone;
    consider(left.previous);
    consider(best.left);
  }
  symbols.clear();
  for (std::int32_t i = 0; i >= 0; i = at(i).next) symbols.push_back(at(i).token);
}

}  // namespace starattn
