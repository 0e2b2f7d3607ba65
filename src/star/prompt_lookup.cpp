// SPDX-License-Identifier: Apache-2.0
#include "star/prompt_lookup.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace starattn {
namespace {

// How many tokens two texts have in common at their ends.
std::size_t n_alike(std::span<const Token> a, std::span<const Token> b, std::size_t most) {
  const std::size_t n = std::min({a.size(), b.size(), most});
  std::size_t i = 0;
  while (i < n && a[a.size() - 1 - i] == b[b.size() - 1 - i]) ++i;
  return i;
}

// What stands in a text behind an earlier place that is like its end, as NgramIndex says.
std::span<const Token> continuation_within(std::span<const Token> text) {
  std::size_t best_alike = NgramIndex::kLength - 1;
  std::size_t best_end = 0;
  for (std::size_t end = text.size() - 1; end >= NgramIndex::kLength; --end) {
    const std::size_t alike = n_alike(text, text.first(end), NgramIndex::kLongest);
    if (alike <= best_alike) continue;
    best_alike = alike;
    best_end = end;
  }
  return best_end > 0 ? text.subspan(best_end) : std::span<const Token>();
}

}  // namespace

NgramIndex::NgramIndex(std::span<const Token> tokens) : tokens_(tokens) {
  STARATTN_CHECK(tokens.size() < UINT32_MAX - 1);
  if (tokens.size() <= kLength) return;
  const std::size_t n_slots = std::bit_ceil(2 * tokens.size());
  shift_ = 64 - std::countr_zero(n_slots);
  last_.assign(n_slots, 0);
  before_.assign(tokens.size(), 0);
  // A run at the very end has nothing behind it.
  for (std::size_t at = 0; at + kLength < tokens.size(); ++at) {
    std::uint32_t& last = last_[slot_of(&tokens[at])];
    before_[at] = last;
    last = static_cast<std::uint32_t>(at) + 1;
  }
}

std::size_t NgramIndex::slot_of(const Token* run) const {
  std::uint64_t hash = 0;
  for (std::size_t i = 0; i < kLength; ++i)
    hash = (hash ^ static_cast<std::uint32_t>(run[i])) * 0x9e3779b97f4a7c15ULL;
  return hash >> shift_;
}

std::span<const Token> NgramIndex::continuation(std::span<const Token> text) const {
  if (text.size() < kLength || last_.empty()) return {};
  std::size_t best_alike = kLength - 1;
  std::size_t best_end = 0;
  std::uint32_t place = last_[slot_of(&text[text.size() - kLength])];
  for (int n = 0; place > 0 && n < kMostPlaces; ++n, place = before_[place - 1]) {
    const std::size_t end = place - 1 + kLength;
    const std::size_t alike = n_alike(text, tokens_.first(end), kLongest);
    if (alike <= best_alike) continue;
    best_alike = alike;
    best_end = end;
  }
  return best_end > 0 ? tokens_.subspan(best_end) : std::span<const Token>();
}

void DraftLength::learn(std::int64_t n_tried, std::int64_t n_true) {
  if (is_fixed_) return;
  if (n_pause_ > 0) {
    --n_pause_;
    return;
  }
  if (n_tried == 0) return;
  next_ = std::clamp<std::int64_t>(n_true == n_tried ? 2 * n_tried : n_true, 1, most_);
  last_pause_ = n_true > 0 ? 0 : std::min(kLongestPause, 2 * last_pause_ + 1);
  n_pause_ = last_pause_;
}

std::vector<Token> PromptLookup::draft(std::span<const Token> query, std::span<const Token> answer,
                                       std::int64_t n_most) const {
  if (n_most <= 0 || query.empty()) return {};
  std::vector<Token> own(query.begin(), query.end());
  own.insert(own.end(), answer.begin(), answer.end());
  std::span<const Token> behind = continuation_within(own);
  if (behind.empty()) behind = index_.continuation(own);
  behind = behind.first(std::min(behind.size(), static_cast<std::size_t>(n_most)));
  return {behind.begin(), behind.end()};
}

}  // namespace starattn
