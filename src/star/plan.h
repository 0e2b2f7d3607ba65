// SPDX-License-Identifier: Apache-2.0
// How a document is cut into context blocks, which blocks each block attends to, and which rank
// owns which block. A pure function of token count and settings; the arithmetic part (block,
// anchor, reach) never depends on the number of ranks, except ring's default block size.
//
// Index spaces, by suffix, in all of star/: _doc token in document, _blk token in block, _row row
// in a batch of rows. Counts are n_*, sizes *_bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/rank.h"
#include "star/token_share.h"

namespace starattn {

using BlockId = std::int64_t;

enum class Attention { star, ring, dense };
enum class Placement { contiguous, zigzag, round_robin };
enum class AnchorMode { broadcast, recompute };

constexpr std::int64_t kReachAll = INT64_MAX;

// What the user asked for; absent means the mode's own default.
struct PlanRequest {
  Attention attention = Attention::star;
  std::optional<std::int64_t> block_size;  // tokens, > 0; absent = auto
  std::optional<TokenShare> anchor_size;   // of the block size, 0 .. block size; absent = all of it
  std::optional<std::int64_t> reach;       // blocks, kReachAll = all
  // Star alone, and without reach: how many earlier tokens come over to a block in each layer, and
  // with how many of its rows it asks; parts of the block size.
  TokenShare recall;
  std::optional<TokenShare> recall_rows;  // absent = auto_recall_rows
  std::optional<Placement> placement;
  AnchorMode anchor_mode = AnchorMode::broadcast;
};

// Tokens [first_doc, first_doc + n_tokens) of the document.
struct TokenRange {
  std::int64_t first_doc = 0;
  std::int64_t n_tokens = 0;
};

class BlockPlan {
 public:
  // widest_window: of the model's layers that have one (ModelConfig); 0: none has. Throws
  // Error(usage) for block size 0, anchor > block and what windows do not go with, Error(bad_data)
  // for an empty context.
  static BlockPlan make(const PlanRequest& request, std::int64_t n_context, int n_ranks,
                        std::int64_t widest_window = 0);

  std::int64_t n_context() const { return n_context_; }
  std::int64_t block_size() const { return block_size_; }
  std::int64_t anchor_size() const { return anchor_size_; }
  std::int64_t reach() const { return reach_; }              // n_blocks - 1 at most: "all"
  std::int64_t recall() const { return recall_; }            // tokens; 0: plain star
  std::int64_t recall_rows() const { return recall_rows_; }  // of a whole block
  std::int64_t n_blocks() const { return n_blocks_; }
  Placement placement() const { return placement_; }
  int n_ranks() const { return n_ranks_; }

  TokenRange block(BlockId i) const;
  // The anchor tokens that block i attends to beside its reach: [0, a) of block 0, or nothing where
  // the reach already covers block 0, so that no token counts twice.
  TokenRange anchor_of(BlockId i) const;
  BlockId first_reached(BlockId i) const;  // block i attends to blocks first_reached(i) .. i - 1

  // Recall: block i chooses among the tokens between the anchor and itself, as many as
  // n_recalled(i), by n_asking_rows(i) of its rows. Nothing where there are none.
  TokenRange recallable(BlockId i) const;
  std::int64_t n_recalled(BlockId i) const;
  std::int64_t n_asking_rows(BlockId i) const;

  Rank owner(BlockId i) const;
  std::vector<BlockId> blocks_of(Rank rank) const;  // ascending

  // What a checkpoint must agree on: everything that changes K and V, nothing of ranks or
  // placement. "block_size=4096 anchor_size=4096 reach=0", and with recall
  // " recall=2048 recall_rows=256 recall_rule=1" behind it.
  std::string canonical_text() const;

 private:
  std::int64_t n_context_ = 0;
  std::int64_t block_size_ = 0;
  std::int64_t anchor_size_ = 0;
  std::int64_t reach_ = 0;
  std::int64_t recall_ = 0;
  std::int64_t recall_rows_ = 0;
  std::int64_t n_blocks_ = 0;
  Placement placement_ = Placement::contiguous;
  int n_ranks_ = 1;
};

// Which earlier tokens a block recalls; a checkpoint made by another rule is not taken.
constexpr int kRecallRule = 1;

}  // namespace starattn
