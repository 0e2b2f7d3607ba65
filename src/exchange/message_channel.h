// SPDX-License-Identifier: Apache-2.0
// The channel to ranks with which this one shares no memory: MPI messages, one a piece, straight
// from and to memory that MPI can use, through pinned memory where the device has its own. MPI does
// nothing in the background.
#pragma once

#include <deque>
#include <vector>

#include "backend/backend.h"
#include "exchange/channel.h"

namespace starattn {

class MessageChannel : public Channel {
 public:
  MessageChannel(const Communicator& group, Backend& backend);  // collective

  bool reaches(Rank rank) const override { return rank != group_.rank(); }
  std::uint64_t send(Source source, std::span<const Reader> readers) override;
  bool has_left(std::uint64_t message) const override { return n_left_ >= message; }
  Arrival receive(Rank from, std::span<std::byte> to) override;
  bool has_arrived(Arrival arrival) const override;
  bool step() override;
  bool is_idle() const override;

 private:
  struct Outgoing {
    Source source;
    std::uint64_t mark = 0;  // the source is complete
    std::vector<Reader> readers;
    std::size_t n_bytes = 0;              // the most that anyone reads
    std::size_t n_begun = 0, n_sent = 0;  // bytes: being copied, handed to MPI
  };
  struct Sent {  // a piece, and the message where it is the last of one
    Requests requests;
    Buffer staging;  // where it is not sent from where it was
    bool is_last = false;
  };
  struct Incoming {
    std::byte* to = nullptr;
    std::size_t n_bytes = 0;
    std::uint64_t mark = 0;  // nobody uses the memory any more
    std::size_t n_posted = 0, n_arrived = 0;
  };
  struct Posted {  // a piece
    Requests requests;
    Buffer staging;
    std::byte* to = nullptr;
    std::size_t n_bytes = 0;
    bool is_copying = false;
  };
  struct Writer {                   // another rank, as this one sees it
    std::deque<Incoming> messages;  // that have not arrived
    std::deque<Posted> pieces;      // in the order in which they come
    std::uint64_t n_asked = 0, n_arrived = 0;
  };

  bool is_sent_from_where_it_is(const Source& source) const {
    return source.is_on_host || backend_->is_host_memory();
  }
  bool send_next();
  void hand_to_mpi(const Outgoing& message, const std::byte* piece);
  bool retire_sent();
  bool receive_from(Rank from);
  bool post_next(Rank from);
  void retire_arrived(Writer& writer) const;
  Buffer take_staging(std::size_t n_bytes);

  Communicator group_;  // of its own, so that nobody else's messages come between
  Backend* backend_;
  std::deque<Outgoing> outgoing_;
  std::deque<Sent> sent_;
  std::uint64_t n_messages_ = 0, n_left_ = 0;
  std::vector<Writer> writers_;        // by rank
  std::vector<Buffer> spare_staging_;  // pinning memory is slow
};

}  // namespace starattn
