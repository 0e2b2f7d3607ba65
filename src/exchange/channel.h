// SPDX-License-Identifier: Apache-2.0
// What a rank hands to other ranks of its group, from device memory to device memory, beside the
// computation: messages, which every writer sends in an order of its own and every reader takes in
// that order. Made once a group; nothing in it knows of layers, blocks or documents.
//
// Sending and arriving are operations, in the order of all others: a message is what the operations
// before send() leave, and operations after wait() see it. How the bytes travel is a matter of the
// implementation: through memory that the ranks of a node share (node_channel.h), as MPI messages
// (message_channel.h); group_channel.h takes the better one for each rank. In both it is the host
// that moves them, inside poll().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "exchange/poll_until.h"
#include "mpi/communicator.h"

namespace starattn {

class Channel {
 public:
  static constexpr std::size_t kPieceBytes = std::size_t{4} << 20;  // in which messages travel

  struct Source {
    const std::byte* data = nullptr;
    bool is_on_host = false;  // pinned host memory; else the device's
  };
  struct Reader {
    Rank rank = 0;
    std::size_t n_bytes = 0;  // from the message's beginning; 0: not a reader
  };
  // Of a message that is on its way to this rank.
  struct Arrival {
    Rank from = 0;
    std::uint64_t number = 0;  // of the sender's messages to this rank, from 1 on
  };

  Channel() = default;
  virtual ~Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  virtual bool reaches(Rank rank) const = 0;  // of the group; never this rank itself

  // This rank's next message to each of the readers: `source` as the operations called so far leave
  // it, with the copies to the host started so far where it is on the host. It has to stay as it is
  // until has_left(). Returns the message's number among all of this rank, from 1 on. Never waits.
  virtual std::uint64_t send(Source source, std::span<const Reader> readers) = 0;
  virtual bool has_left(std::uint64_t message) const = 0;

  // Begins to take the next message of `from`, which has to be of the size of `to`, device memory
  // that operations called so far may still use. Never waits. Where there are many messages they
  // are taken in the order of these calls, a few at a time: the one that can come first goes first.
  virtual Arrival receive(Rank from, std::span<std::byte> to) = 0;
  virtual bool has_arrived(Arrival arrival) const = 0;  // for operations called from here on

  // One step of what is possible at the moment; false when there was none.
  virtual bool step() = 0;
  virtual bool is_idle() const = 0;  // everything sent was taken, everything asked for has arrived

  void poll() {
    while (step()) {
    }
  }
  // Operations called from here on see the message. A wait, if there is one, is a range of the
  // name.
  void wait(Arrival arrival, const char* range_name) {
    poll_until(
        range_name, [this] { poll(); }, [&] { return has_arrived(arrival); });
  }
  void wait_until_idle(const char* range_name) {
    poll_until(
        range_name, [this] { poll(); }, [this] { return is_idle(); });
  }
};

}  // namespace starattn
