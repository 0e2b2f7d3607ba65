// SPDX-License-Identifier: Apache-2.0
// The channel within a node. Each rank copies its messages, piece by piece, into a ring of memory
// that all ranks of the node map and their devices copy to and from, and tells each reader in a
// mailbox of its own where the piece lies; each reader copies out what is meant for it. A piece
// lies in the ring once, however many read it, and until the last of them has it.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "exchange/channel.h"
#include "mpi/node_memory.h"

namespace starattn {

class NodeChannel : public Channel {
 public:
  // node: the ranks of the group that share memory with this one (Communicator::split_by_node).
  // Collective over the node. Where it has no memory to share, the channel reaches nobody.
  NodeChannel(const Communicator& group, const Communicator& node, Backend& backend);

  // The lowest rank that shares this memory, this one included.
  Rank first_rank() const { return memory_ ? ranks_.front() : ranks_[me_]; }
  bool reaches(Rank rank) const override { return place_of(rank).has_value(); }
  std::uint64_t send(Source source, std::span<const Reader> readers) override;
  bool has_left(std::uint64_t message) const override { return n_left_ >= message; }
  Arrival receive(Rank from, std::span<std::byte> to) override;
  bool has_arrived(Arrival arrival) const override;
  bool step() override;
  bool is_idle() const override;

 private:
  static constexpr std::size_t kMostPieces = 32;  // of one writer, in its ring at a time

  // Places: of a rank among the node's.
  struct Outgoing {
    Source source;
    std::uint64_t mark = 0;                                    // the source is complete
    std::vector<std::pair<std::size_t, std::size_t>> readers;  // place, n_bytes
    std::size_t n_bytes = 0;                                   // the most that anyone reads
    std::size_t n_begun = 0, n_done = 0;                       // bytes: being copied, in the ring
  };
  struct Piece {  // in this rank's ring
    std::size_t at = 0;
    std::vector<std::pair<std::size_t, std::uint64_t>> readers;  // place, n_taken that frees it
  };
  struct Incoming {
    std::byte* to = nullptr;
    std::size_t n_bytes = 0;
    std::uint64_t mark = 0;  // nobody uses the memory any more
    std::size_t n_begun = 0;
  };
  struct Writer {                              // another rank, as this one sees it
    std::deque<Incoming> messages;             // that have not arrived
    std::uint64_t n_asked = 0, n_arrived = 0;  // messages
    std::uint64_t n_begun = 0, n_taken = 0;    // pieces
  };
  // What is shared of each pair of ranks: pieces in the writer's ring, and how far both have come.
  struct Mail {
    std::uint64_t at = 0;
    std::uint64_t n_bytes = 0;  // for this reader
  };

  std::optional<std::size_t> place_of(Rank rank) const;  // of another
  std::size_t pair(std::size_t writer, std::size_t reader) const {
    return writer * ranks_.size() + reader;
  }
  Mail& mail(std::size_t pair, std::uint64_t piece) const {
    return mail_[pair * kMostPieces + piece % kMostPieces];
  }
  std::size_t sent(std::size_t pair) const { return 2 * pair; }  // counters: pieces
  std::size_t taken(std::size_t pair) const { return 2 * pair + 1; }

  bool fill();  // from this rank's messages into its ring
  bool take();  // from the others' rings
  bool begin_to_take(std::size_t place);
  void retire_arrived(Writer& writer) const;
  void forget_what_is_taken();
  std::optional<std::size_t> room_for(std::size_t n_bytes);
  void post(const Outgoing& message);

  Backend* backend_;
  std::vector<Rank> ranks_;  // of the node, ascending
  std::size_t me_;           // place of this rank
  std::optional<NodeMemory> memory_;
  Buffer pinned_;  // memory_, while it is registered with the device
  std::size_t ring_bytes_ = 0;
  std::size_t piece_bytes_ = 0;
  Mail* mail_ = nullptr;  // [pair][kMostPieces]
  SharedCounters counters_{nullptr};

  std::deque<Outgoing> outgoing_;
  std::deque<Piece> pieces_;           // oldest first
  std::size_t next_at_ = 0;            // in the ring
  std::vector<std::uint64_t> n_sent_;  // pieces, to each place
  std::uint64_t n_messages_ = 0, n_left_ = 0;
  std::vector<Writer> writers_;  // by place
  bool is_taking_ = false;
};

}  // namespace starattn
