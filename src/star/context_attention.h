// SPDX-License-Identifier: Apache-2.0
// Attention of phase 2's rows over the whole context: every rank's Q goes to everyone, each makes
// unfinished attention over its own blocks, merged into subtrees of the canonical tree, and the
// ranks whose rows they are merge these to its root.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "exchange/step_exchange.h"
#include "star/kv.h"
#include "star/kv_prefetch.h"
#include "star/merge_tree.h"

namespace starattn {

class ContextAttention {
 public:
  // Blocks that one call attends to: bounds the memory of partials that are not merged yet.
  static constexpr std::size_t kBlocksAtOnce = 8;

  // kv: this rank's share. merge_by_rank: partials travel along the tree, from rank to rank,
  // instead of one gather. Arguments must outlive this.
  ContextAttention(Backend& backend, StepExchange& exchange, const DocumentKv& kv,
                   std::int64_t n_layers, const AttentionShape& shape, bool merge_by_rank);

  // The exchange carries this document from here on. All ranks alike.
  void start();
  // Unfinished attention over the context. q: what this rank has of the step's rows; the result:
  // what it merges of them, as the exchange says. Layers in turn. Good until the next call.
  // own_tokens_next: nothing but Backend::attend_own() reads it. Collective.
  PartialTree attend(std::int64_t layer, Rows q, bool own_tokens_next = false);
  // Where this rank is alone and has so few blocks that one call attends to them, it can finish
  // attention with its queries' own tokens at once; the arguments are those of Backend::attend_own.
  bool can_finish() const {
    return group_->size() == 1 && kv_->plan.n_blocks() <= static_cast<std::int64_t>(kBlocksAtOnce);
  }
  // Whether operations are all there is to it: nothing to wait for or to copy beside them.
  bool is_at_hand() const { return exchange_->leaves_out_host() && !prefetch_.has_host(); }
  void finish(std::int64_t layer, Rows q, Rows k, Rows v, std::span<const OwnTokens> own, Rows out);

 private:
  // Attention of all ranks' rows over this rank's blocks, merged into subtrees.
  using Subtree = std::pair<MergeNode, int>;  // and the number of its partial
  std::vector<Subtree> attend_to_blocks(std::int64_t layer, Rows all_q, bool announces);
  Partial merge_along_tree(std::vector<Subtree> mine);
  int take_partial();
  Partial partial(int number) const {
    return partials_[static_cast<std::size_t>(number)].view(exchange_->n_rows());
  }

  Backend* backend_;
  StepExchange* exchange_;
  const Communicator* group_;
  const DocumentKv* kv_;
  KvPrefetch prefetch_;
  AttentionShape shape_;
  bool merge_by_rank_;
  bool are_few_blocks_;  // on every rank: one call attends to them
  std::vector<std::vector<MergeNode>> subtrees_by_rank_;
  std::vector<Merge> merges_to_root_;    // of these subtrees, numbered rank by rank
  std::size_t root_ = 0;                 // the number that is the whole context in the end
  std::vector<Merge> merges_alone_;      // of the blocks, where can_finish()
  std::vector<PartialBuffer> partials_;  // [max_rows, n_heads, head_dim], as many as were needed
  std::vector<int> free_;                // of them
  PartialBuffer merged_;                 // from another rank, along the tree
};

}  // namespace starattn
