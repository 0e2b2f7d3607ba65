// SPDX-License-Identifier: Apache-2.0
// A discrete-event simulation of ranks that do one thing after another, and of messages between
// them. It knows seconds and bytes, and nothing of what they are for.
//
// A rank sends through one port and receives through another, each one message at a time and in the
// order in which they were sent; a message passes both ports at once. Ranks of a node share memory:
// to all of them a message goes out once.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/rank.h"
#include "star/machine.h"

namespace starattn {

struct Links {
  int ranks_per_node = 1;
  ByteTime near;            // between ranks of a node
  ByteTime far;             // between nodes
  bool takes_time = false;  // the ranks' own: on CPUs it is they who copy
};

class Timeline {
 public:
  using Message = std::uint32_t;  // to one reader

  Timeline(int n_ranks, const Links& links);

  // What a rank does, in the order of these calls.
  void compute(Rank rank, double seconds);
  // To each reader a message of its own; they are numbered from the result on.
  Message send(Rank from, double n_bytes, std::span<const Rank> readers);
  // The same along a chain of nodes, each of which hands on piece by piece what it gets (the
  // anchor's way, exchange/anchor_broadcast.h).
  Message send_on_and_on(Rank from, double n_bytes, double piece_bytes,
                         std::span<const Rank> readers);
  void wait(Rank rank, Message message);  // which is for this rank

  void slow_down(Rank rank, double factor);  // whatever it computes takes so many times as long

  // Once. Throws Error(bug) where ranks wait for each other in a circle.
  void run();
  double seconds() const;  // until the last rank is done
  double waited(Rank rank) const { return ranks_[index(rank)].waited; }  // for messages
  double n_bytes() const { return n_bytes_; }                            // that were sent

  std::size_t n_operations() const { return n_operations_; }

 private:
  enum class Kind : std::uint8_t { compute, send, send_again, wait };
  struct Operation {
    double value = 0;  // seconds, or bytes
    Message message = 0;
    Kind kind = Kind::compute;
  };
  struct RankState {
    std::vector<Operation> program;
    std::size_t next = 0;
    double now = 0;
    double out_is_free = 0;
    double in_is_free = 0;
    double waited = 0;
    double factor = 1;
  };
  struct InFlight {
    Rank to = 0;
    float delay = 0;  // of nodes in between
    float copy = 0;   // of the reader's own time
    bool is_waited_for = false;
    double arrival = std::numeric_limits<double>::infinity();
  };

  static std::size_t index(Rank rank) { return static_cast<std::size_t>(rank); }
  bool is_near(Rank a, Rank b) const {
    return a / links_.ranks_per_node == b / links_.ranks_per_node;
  }
  void add(Rank rank, Operation operation);
  // One operation of the rank; false when it cannot go on yet or is done.
  bool step(Rank rank);
  void leave(Rank from, const Operation& send);

  Links links_;
  std::vector<RankState> ranks_;
  std::vector<InFlight> messages_;
  std::vector<Rank> woken_;  // by the last message
  double n_bytes_ = 0;
  std::size_t n_operations_ = 0;
};

}  // namespace starattn
