// SPDX-License-Identifier: Apache-2.0
// What phase 2's steps need of the other ranks, whoever runs the network on which rows: before a
// step all meet, and in each layer rows of Q go to everyone and partials come back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "mpi/communicator.h"
#include "trace/span.h"

namespace starattn {

// A partial as it travels: o | m | l of its rows. host: PartialBuffer::n_bytes of them.
void download(Backend& backend, Partial rows, const AttentionShape& shape,
              std::span<std::byte> host);

class StepExchange {
 public:
  // max_rows: of a step, over all ranks. The group and the backend must outlive the exchange.
  StepExchange(const Communicator& group, Backend& backend, std::int64_t max_rows)
      : group_(&group), backend_(&backend), max_rows_(max_rows) {}
  virtual ~StepExchange() = default;

  const Communicator& group() const { return *group_; }
  std::int64_t max_rows() const { return max_rows_; }

  // n_parts[rank]: partials that the rank hands over in each layer that follows; the same on every
  // rank.
  virtual void start_document(std::vector<std::int64_t> n_parts) = 0;
  // Whether a step's layers may begin before the ranks meet: its messages keep their order by
  // themselves.
  virtual bool may_go_ahead() const { return group_->size() == 1; }
  // Whether no message of a layer comes to the host. Then layers may be repeated (Backend).
  virtual bool leaves_out_host() const { return may_go_ahead(); }
  // Every rank hears what each has to say before a step begins, and, unless steps may go ahead,
  // that all devices have finished with the layers before: other ranks may write from here on.
  // Collective.
  template <typename Word>
  std::vector<Word> meet(const Word& mine) {
    if (!may_go_ahead()) backend_->synchronize();
    has_met_ = true;
    if (group_->size() > 1) trace::message("meet", sizeof(Word));
    const trace::Span span("wait for a step", trace::Lane::messages);
    return group_->allgather(mine);
  }
  // The rows that each rank brings to the layers that follow; the same on every rank, which have
  // met just before, unless steps may go ahead.
  virtual void start_step(std::vector<std::int64_t> n_rows) = 0;
  virtual std::int64_t n_rows() const = 0;              // of the step
  virtual std::int64_t n_rows_of(Rank rank) const = 0;  // that the rank brings

  // All rows of the step with all their heads. mine: what this rank has of them. Collective, and
  // followed by collect() or by another exchange that ends only when all have used the rows.
  virtual Rows share(Rows mine) = 0;
  // collect() of these is what the ranks do next. One Backend::attend_blocks() makes them all
  // before then, mine[0] from its first block, and may send them by itself; Backend::attend_own()
  // reads what is collected, and nobody else. Where the devices can, on every rank or on none.
  virtual void announce_parts(std::span<const Partial> /*mine*/) {}
  // Of every rank's partials, in rank order, those that this rank merges, on the device. mine:
  // n_parts of this rank, each of all rows and heads. Collective. Good until the next call.
  virtual std::vector<Partial> collect(std::span<const Partial> mine) = 0;
  virtual AttentionShape collected_shape() const = 0;

 protected:
  const Communicator* group_;
  Backend* backend_;
  std::int64_t max_rows_;
  bool has_met_ = false;  // since the last layer
};

}  // namespace starattn
