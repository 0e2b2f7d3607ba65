// SPDX-License-Identifier: Apache-2.0
// The channel to every rank of a group: to those of this rank's node through the memory that they
// share, to all others, or where there is none, as MPI messages.
#pragma once

#include <vector>

#include "exchange/message_channel.h"
#include "exchange/node_channel.h"

namespace starattn {

class GroupChannel : public Channel {
 public:
  // node: the ranks that share memory with this one (Communicator::split_by_node). Collective over
  // the group. The backend must outlive the channel.
  GroupChannel(const Communicator& group, const Communicator& node, Backend& backend);

  bool reaches(Rank rank) const override { return far_.reaches(rank); }
  std::uint64_t send(Source source, std::span<const Reader> readers) override;
  bool has_left(std::uint64_t message) const override {
    return near_.has_left(message) && far_.has_left(message);
  }
  Arrival receive(Rank from, std::span<std::byte> to) override {
    return route(from).receive(from, to);
  }
  bool has_arrived(Arrival arrival) const override {
    return near_.reaches(arrival.from) ? near_.has_arrived(arrival) : far_.has_arrived(arrival);
  }
  bool step() override;
  bool is_idle() const override { return near_.is_idle() && far_.is_idle(); }

  // Of each rank of the group: the lowest of the ranks with which it shares memory, itself
  // included.
  const std::vector<Rank>& nodes() const { return nodes_; }

 private:
  Channel& route(Rank rank) {
    return near_.reaches(rank) ? static_cast<Channel&>(near_) : static_cast<Channel&>(far_);
  }

  NodeChannel near_;
  MessageChannel far_;
  std::vector<Rank> nodes_;
};

}  // namespace starattn
