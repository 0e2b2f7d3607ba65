// SPDX-License-Identifier: Apache-2.0
#include "star/anchor_stage.h"

#include <algorithm>
#include <utility>

namespace starattn {

AnchorStage::AnchorStage(const Communicator& group, Communicator node, Backend& backend)
    : node_(std::move(node)) {
  if (node_.size() > 1) {
    const std::size_t n_counters = 1 + static_cast<std::size_t>(node_.size());
    shared_ = NodeMemory::create(node_, kBytes + n_counters * sizeof(Counter));
  }
  // On a node without shared memory each rank is alone; the whole group takes part in a split.
  const bool is_alone = !shared_;
  const std::vector<Rank> first_of_node = group.allgather(node_.allgather(group.rank()).front());
  node_ =
      group.split(is_alone ? group.rank() : first_of_node[static_cast<std::size_t>(group.rank())]);
  ranks_ = node_.allgather(group.rank());
  if (shared_) {
    slots_ = shared_->bytes().data();
    counters_ = SharedCounters(reinterpret_cast<Counter*>(slots_ + kBytes));
    pinned_ = backend.pin(shared_->bytes().first(kBytes));
  } else {
    pinned_ = backend.allocate_host(kBytes);
    slots_ = pinned_.data();
    own_counters_.resize(2);
    counters_ = SharedCounters(own_counters_.data());
  }
}

void AnchorStage::begin() {
  node_.barrier();  // nobody looks at the last document's counters any more
  if (node_.is_root())
    for (std::size_t i = 0; i < 1 + ranks_.size(); ++i) counters_.set(i, 0);
  node_.barrier();
}

}  // namespace starattn
