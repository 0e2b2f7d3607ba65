// SPDX-License-Identifier: Apache-2.0
#include "exchange/node_stage.h"

#include <algorithm>
#include <utility>

namespace starattn {

NodeStage::NodeStage(const Communicator& group, Communicator node, Backend& backend, int n_channels,
                     std::size_t channel_bytes)
    : node_(std::move(node)),
      n_channels_(static_cast<std::size_t>(n_channels)),
      channel_bytes_((channel_bytes + sizeof(Counter) - 1) / sizeof(Counter) * sizeof(Counter)) {
  const std::size_t slots_bytes = n_channels_ * channel_bytes_;
  if (node_.size() > 1) {
    const std::size_t n_counters = n_channels_ * (1 + static_cast<std::size_t>(node_.size()));
    shared_ = NodeMemory::create(node_, slots_bytes + n_counters * sizeof(Counter));
  }
  // On a node without shared memory each rank is alone; the whole group takes part in a split.
  const bool is_alone = !shared_;
  const std::vector<Rank> first_of_node = group.allgather(node_.allgather(group.rank()).front());
  node_ =
      group.split(is_alone ? group.rank() : first_of_node[static_cast<std::size_t>(group.rank())]);
  ranks_ = node_.allgather(group.rank());
  if (shared_) {
    slots_ = shared_->bytes().data();
    counters_ = SharedCounters(reinterpret_cast<Counter*>(slots_ + slots_bytes));
    pinned_ = backend.pin(shared_->bytes().first(slots_bytes));
  } else {
    n_channels_ = 1;
    pinned_ = backend.allocate_pinned(channel_bytes_);
    slots_ = pinned_.data();
    own_counters_.resize(2);
    counters_ = SharedCounters(own_counters_.data());
  }
}

std::size_t NodeStage::room_a_channel(const Communicator& node, int n_channels) {
  const auto n = static_cast<std::size_t>(n_channels);
  const std::size_t counters = n * (1 + static_cast<std::size_t>(node.size())) * sizeof(Counter);
  const std::size_t room = NodeMemory::room(node);
  if (room <= counters) return 0;
  return std::min((room - counters) / n / sizeof(Counter) * sizeof(Counter), kMostBytes);
}

void NodeStage::begin() {
  node_.barrier();  // nobody looks at the last document's counters any more
  if (node_.is_root())
    for (std::size_t i = 0; i < n_channels_ * (1 + ranks_.size()); ++i) counters_.set(i, 0);
  node_.barrier();
}

}  // namespace starattn
