// SPDX-License-Identifier: Apache-2.0
// One layer of recall among the ranks of a group, in four steps that each rank takes together with
// its attention: blocks ask, every rank answers with the best tokens it holds, the asking block
// takes the best of all, and their keys and values come over. docs/recall.md has the rule.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "exchange/channel.h"
#include "exchange/rank_messages.h"
#include "mpi/communicator.h"
#include "star/plan.h"
#include "star/recall_choice.h"

namespace starattn {

class RecallExchange {
 public:
  // Rows travel through the channel, which carries nothing else; what the host has to read, as
  // messages. poll: called while this rank waits. Arguments must outlive the exchange.
  RecallExchange(const Communicator& group, Channel* channel, Backend& backend,
                 const BlockPlan& plan, const AttentionShape& shape, std::function<void()> poll);

  // These blocks ask in the layers that follow, at most one a rank, ascending; the same on every
  // rank.
  void start_wave(std::span<const BlockId> asking);

  // K or V of all tokens of a block that this rank holds, in the layer in work.
  using RowsOf = std::function<RawRows(BlockId)>;

  // This rank's block asks with q [n_asking_rows, n_heads * head_dim] and their log-sum-exps z
  // [n_asking_rows, n_heads]. Both stay as they are until recalled().
  void ask(BlockId block, Rows q, const float* z);
  // The best of what this rank holds, to each block that asks.
  void answer(const RowsOf& keys);
  // Of this rank's block: chooses among all answers, and tells those who have what it wants.
  void choose();
  // Keys and values to the blocks that want them.
  void hand_over(const RowsOf& keys, const RowsOf& values);
  // What this rank's block recalled, in document order. Good until the next layer's hand_over().
  KvSegment recalled();
  // After a wave's last layer: what this rank handed over has been taken. It polls no more.
  void finish_wave();

 private:
  struct Asking {  // a block of this wave that asks this rank, or is this rank's
    BlockId block = 0;
    std::vector<RecallablePart> parts;  // that this rank holds
    std::int64_t n_candidates = 0;      // of them
    Rows q;
    const float* z = nullptr;
    Buffer received;    // q, then z, where another rank asks
    Buffer candidates;  // numbers, then scores: [2, n_candidates]
    Buffer handed;      // keys, then values, that another rank wants
  };
  bool is_alone() const { return group_->size() == 1; }
  bool is_mine(BlockId block) const { return plan_->owner(block) == group_->rank(); }
  std::int64_t n_candidates(BlockId asking, Rank rank) const;
  std::size_t ask_bytes(BlockId asking) const;
  void gather(const Asking& asking, const RowsOf& rows, const std::int32_t* numbers, RawRows to);
  RawRows rows_of(const Buffer& buffer, std::int64_t first, std::int64_t n) const;
  std::int32_t* upload(std::span<const std::int32_t> numbers, Buffer& to);

  void send(std::span<const std::byte> bytes, Rank to);
  void await(Channel::Arrival arrival);

  const Communicator* group_;
  Channel* channel_;  // null for a group of one
  Backend* backend_;
  const BlockPlan* plan_;
  AttentionShape shape_;
  bool has_f8_kv_;
  std::size_t row_bytes_;  // of K, or of V
  RankMessages messages_;

  std::vector<Asking> asking_;              // that this rank answers
  BlockId own_ = -1;                        // this rank's block that asks in this wave
  std::vector<Rank> answering_;             // who holds something for it, ascending
  Choice choice_;                           // for it
  Buffer scores_;                           // [tokens that this rank holds]
  Buffer numbers_;                          // wanted of this rank, or the order of what arrived
  std::vector<Channel::Arrival> arrivals_;  // of keys and values for own_
  Buffer arrived_k_, arrived_v_;            // of all ranks, one after another
  Buffer recalled_k_, recalled_v_;
};

}  // namespace starattn
