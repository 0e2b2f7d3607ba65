// SPDX-License-Identifier: Apache-2.0
// How phase 2's layers go between the ranks: rows of Q to everyone, everyone's partials to the
// ranks whose rows they are. On one node both pass through memory that all ranks map and their GPUs
// copy to and from, with counters that say how far each rank has come; between nodes they are MPI
// messages.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "exchange/step_exchange.h"
#include "mpi/communicator.h"
#include "mpi/node_memory.h"

namespace starattn {

class QueryExchange : public StepExchange {
 public:
  // Made once a group. node: the ranks that share memory with this one
  // (Communicator::split_by_node). max_rows: of a step, over all ranks. Collective. The group and
  // the backend must outlive the exchange.
  QueryExchange(const Communicator& group, const Communicator& node, Backend& backend,
                const AttentionShape& shape, std::int64_t max_rows);

  void start_document(std::vector<std::int64_t> n_parts) override;
  void start_step(std::vector<std::int64_t> n_rows) override;
  std::int64_t n_rows() const override { return first_row_.back(); }  // of all ranks
  std::int64_t n_rows_of(Rank rank) const override {
    return first_row_[static_cast<std::size_t>(rank) + 1] -
           first_row_[static_cast<std::size_t>(rank)];
  }

  // All ranks' rows, in rank order, where this rank has partials to make of them. mine [this rank's
  // rows, n_heads * head_dim].
  Rows share(Rows mine) override;
  // This rank's rows of every rank's partials, its own ones in place. Nothing where it has no rows.
  std::vector<Partial> collect(std::span<const Partial> mine) override;
  AttentionShape collected_shape() const override { return shape_; }

 private:
  std::int64_t first_row_of(Rank rank) const { return first_row_[static_cast<std::size_t>(rank)]; }
  std::int64_t n_parts_of(Rank rank) const { return n_parts_[static_cast<std::size_t>(rank)]; }
  std::size_t part_bytes(std::int64_t n_rows) const {
    return PartialBuffer::n_bytes(n_rows, shape_);
  }
  std::size_t message_bytes(Rank from, Rank to) const {
    return static_cast<std::size_t>(n_parts_of(from)) * part_bytes(n_rows_of(to));
  }
  std::size_t bytes_for(Rank to) const;  // messages of all others
  // This rank's partials of `to`'s rows, into host memory.
  void pack(std::span<const Partial> mine, Rank to, std::span<std::byte> message);

  // Between nodes. All rows; then each rank's message to this one is in incoming_.
  std::span<std::byte> share_by_messages(Rows mine);
  void hand_over_by_messages(std::span<const Partial> mine);
  std::span<std::byte> arrived_from(Rank from) const;
  std::span<std::byte> pinned(Buffer& buffer, std::size_t n_bytes);

  // On one node. The window: each rank's counters, all rows of Q, each rank's messages.
  enum class Stage { queries, parts };
  std::span<std::byte> share_in_window(Rows mine, bool takes_rows);
  void hand_over_in_window(std::span<const Partial> mine);
  void open_window(const Communicator& node);
  void lay_out_window();
  bool is_in_window() const { return window_ && n_rows() <= window_rows_; }
  std::span<std::byte> message_in_window(Rank from, Rank to) const;
  void announce(Stage stage);
  void await(Rank rank, Stage stage) const;
  std::size_t counter_of(Rank rank, Stage stage) const {
    return (stage == Stage::queries ? 0 : n_parts_.size()) + static_cast<std::size_t>(rank);
  }

  AttentionShape shape_;
  std::size_t row_bytes_;
  std::vector<std::int64_t> n_parts_;
  std::vector<std::int64_t> first_row_;  // of each rank's rows in this step; last: all rows
  RowBuffer all_;                        // [max_rows, n_heads * head_dim]
  Buffer received_;                      // partials of other ranks, grown as needed

  std::optional<NodeMemory> window_;
  Buffer pinned_;  // the window, while it is registered with the device
  SharedCounters counters_{nullptr};
  std::int64_t window_rows_ = 0;  // of a step, that fit
  std::size_t queries_at_ = 0;
  std::vector<std::size_t> messages_at_;  // of each rank
  std::uint64_t n_layers_ = 0;            // handed over in the window so far

  Buffer queries_, outgoing_, incoming_;  // pinned, between nodes, grown as needed
};

}  // namespace starattn
