// SPDX-License-Identifier: Apache-2.0
// Recall's choice among ranks (docs/recall.md): what a rank holds that a block may recall, and how
// the best of every rank become the best of all. No device, no messages.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "star/plan.h"

namespace starattn {

// One own key in so many, beside the anchor, says what an ordinary score of an asking row is.
inline constexpr std::int64_t kSampleStride = 16;

// Tokens of one block that later blocks may recall: those behind the anchor.
struct RecallablePart {
  BlockId block = 0;
  std::int64_t first_blk = 0;
  std::int64_t n_tokens = 0;
};

// What `rank` holds for the block that asks, in document order. Its tokens, counted through, are
// the numbers by which the ranks speak of them.
std::vector<RecallablePart> parts_held(const BlockPlan& plan, Rank rank, BlockId asking);
std::int64_t n_tokens(std::span<const RecallablePart> parts);

// The best tokens that one rank holds.
struct Candidates {
  std::vector<RecallablePart> parts;
  std::span<const std::int32_t> numbers;  // ascending
  std::span<const float> scores;          // of these
};

// Of all candidates the n best, of equal scores the earlier token; what is not a number counts as
// lowest.
struct Choice {
  std::vector<std::vector<std::int32_t>> wanted;  // numbers, of each rank's candidates, ascending
  // In document order: where each chosen token stands when the wanted of all ranks are counted
  // through.
  std::vector<std::int32_t> order;
};
Choice choose_among(const BlockPlan& plan, std::span<const Candidates> ranks, std::int64_t n);

}  // namespace starattn
