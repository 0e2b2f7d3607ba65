// SPDX-License-Identifier: Apache-2.0
#include "star/recall_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace starattn {

std::vector<RecallablePart> parts_held(const BlockPlan& plan, Rank rank, BlockId asking) {
  std::vector<RecallablePart> parts;
  if (plan.n_recalled(asking) == 0) return parts;
  for (const BlockId i : plan.blocks_of(rank)) {
    if (i >= asking) break;
    const TokenRange block = plan.block(i);
    const std::int64_t first = std::max<std::int64_t>(0, plan.anchor_size() - block.first_doc);
    if (first < block.n_tokens) parts.push_back({i, first, block.n_tokens - first});
  }
  return parts;
}

std::int64_t n_tokens(std::span<const RecallablePart> parts) {
  std::int64_t n = 0;
  for (const RecallablePart& part : parts) n += part.n_tokens;
  return n;
}

Choice choose_among(const BlockPlan& plan, std::span<const Candidates> ranks, std::int64_t n) {
  struct Candidate {
    float score;
    std::int64_t token_doc;
    std::size_t rank;  // its place among `ranks`
    std::int32_t number;
  };
  std::vector<Candidate> all;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    STARATTN_CHECK(ranks[r].numbers.size() == ranks[r].scores.size());
    std::size_t part = 0;
    std::int64_t before = 0;  // tokens of the parts before this one
    for (std::size_t i = 0; i < ranks[r].numbers.size(); ++i) {
      const std::int32_t number = ranks[r].numbers[i];
      while (number >= before + ranks[r].parts[part].n_tokens)
        before += ranks[r].parts[part++].n_tokens;
      const RecallablePart& in = ranks[r].parts[part];
      const float score = ranks[r].scores[i];
      all.push_back({std::isnan(score) ? -std::numeric_limits<float>::infinity() : score,
                     plan.block(in.block).first_doc + in.first_blk + number - before, r, number});
    }
  }
  STARATTN_CHECK(n <= std::ssize(all));
  std::nth_element(all.begin(), all.begin() + n, all.end(),
                   [](const Candidate& a, const Candidate& b) {
                     return a.score != b.score ? a.score > b.score : a.token_doc < b.token_doc;
                   });
  all.resize(static_cast<std::size_t>(n));
  std::ranges::sort(all, {}, &Candidate::token_doc);

  Choice choice;
  choice.wanted.resize(ranks.size());
  for (const Candidate& chosen : all) {
    choice.order.push_back(static_cast<std::int32_t>(choice.wanted[chosen.rank].size()));
    choice.wanted[chosen.rank].push_back(chosen.number);
  }
  std::vector<std::int32_t> first(ranks.size(), 0);
  for (std::size_t r = 1; r < ranks.size(); ++r)
    first[r] = first[r - 1] + static_cast<std::int32_t>(choice.wanted[r - 1].size());
  for (std::size_t i = 0; i < all.size(); ++i) choice.order[i] += first[all[i].rank];
  return choice;
}

}  // namespace starattn
