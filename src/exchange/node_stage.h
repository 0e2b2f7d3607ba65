// SPDX-License-Identifier: Apache-2.0
// Host memory that a node's ranks share and their GPUs copy to and from, where phase 1's keys and
// values pass through in pieces: channels, which their users cut into slots. One rank fills a
// channel's slots in turn, others take from them; counters say how far each has come.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "mpi/communicator.h"
#include "mpi/node_memory.h"

namespace starattn {

class NodeStage {
 public:
  static constexpr std::size_t kMostPieceBytes = std::size_t{4} << 20;
  // Of a channel; one of this size fits a container's /dev/shm, which has 64 MiB.
  static constexpr std::size_t kMostBytes = std::size_t{24} << 20;

  // Collective over the group. node: its ranks that share memory (Communicator::split_by_node).
  // Where a node has no memory to share, each of its ranks has a stage of its own with one channel,
  // as if it were alone on its node.
  NodeStage(const Communicator& group, Communicator node, Backend& backend, int n_channels,
            std::size_t channel_bytes);

  // Ranks of the group that share this stage, ascending.
  const std::vector<Rank>& ranks() const { return ranks_; }
  std::size_t channel_bytes() const { return channel_bytes_; }
  std::byte* data(int channel) const {  // [channel_bytes], shared
    return slots_ + static_cast<std::size_t>(channel) * channel_bytes_;
  }

  void begin();  // all counters back to 0; collective over the ranks that share the stage
  // Pieces that have been filled so far, and taken, or passed over, by one of ranks(). Whoever
  // reads that a piece was filled may read its slot; whoever reads that it was taken may write
  // there.
  std::uint64_t n_filled(int channel) const { return counters_.get(counter(channel, 0)); }
  void set_filled(int channel, std::uint64_t n) { counters_.set(counter(channel, 0), n); }
  std::uint64_t n_taken(int channel, std::size_t by) const {  // index in ranks()
    return counters_.get(counter(channel, 1 + by));
  }
  void set_taken(int channel, std::uint64_t n) {
    counters_.set(counter(channel, 1 + static_cast<std::size_t>(node_.rank())), n);
  }

  // What create() of node memory would give each of n_channels, at most kMostBytes. Collective over
  // the node.
  static std::size_t room_a_channel(const Communicator& node, int n_channels);

 private:
  using Counter = SharedCounters::Counter;
  std::size_t counter(int channel, std::size_t i) const {
    return static_cast<std::size_t>(channel) * (1 + ranks_.size()) + i;
  }

  Communicator node_;
  std::size_t n_channels_;
  std::size_t channel_bytes_;
  std::vector<Rank> ranks_;
  std::optional<NodeMemory> shared_;
  Buffer pinned_;  // shared_, while it is registered with the device; or this rank's own memory
  std::byte* slots_ = nullptr;
  SharedCounters counters_{nullptr};  // of each channel: filled, then taken by each of ranks()
  std::vector<Counter> own_counters_;
};

}  // namespace starattn
