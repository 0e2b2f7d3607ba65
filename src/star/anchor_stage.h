// SPDX-License-Identifier: Apache-2.0
// Where the anchor passes through a node: slots of host memory that the node's ranks share and
// their GPUs copy to and from. One rank fills the slots in turn, the others take from them;
// counters beside the slots say how far each has come.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "mpi/communicator.h"
#include "mpi/node_memory.h"

namespace starattn {

class AnchorStage {
 public:
  static constexpr std::size_t kBytes = std::size_t{24} << 20;  // a container's /dev/shm has 64 MiB

  // Collective over the group. node: its ranks that share memory (Communicator::split_by_node).
  // Where a node has no memory to share, each of its ranks has a stage of its own, as if it were
  // alone on its node.
  AnchorStage(const Communicator& group, Communicator node, Backend& backend);

  // Ranks of the group that share this stage, ascending.
  const std::vector<Rank>& ranks() const { return ranks_; }
  std::byte* data() const { return slots_; }  // kBytes, shared

  void begin();  // all counters back to 0; collective over the group
  // Pieces that have been filled so far, and taken by one of ranks(). Whoever reads that a piece
  // was filled may read its slot; whoever reads that it was taken may write there.
  std::uint64_t n_filled() const { return counters_.get(0); }
  void set_filled(std::uint64_t n) { counters_.set(0, n); }
  std::uint64_t n_taken(std::size_t by) const { return counters_.get(1 + by); }  // index in ranks()
  void set_taken(std::uint64_t n) { counters_.set(1 + static_cast<std::size_t>(node_.rank()), n); }

 private:
  using Counter = SharedCounters::Counter;
  Communicator node_;
  std::vector<Rank> ranks_;
  std::optional<NodeMemory> shared_;
  Buffer pinned_;  // shared_, while it is registered with the device; or this rank's own memory
  std::byte* slots_ = nullptr;
  SharedCounters counters_{nullptr};  // filled, then taken by each of ranks()
  std::vector<Counter> own_counters_;
};

}  // namespace starattn
