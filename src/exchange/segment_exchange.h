// SPDX-License-Identifier: Apache-2.0
// One layer's K and V of whole blocks on their way from their owners to the ranks whose blocks
// reach them (reach > 0; ring attention is reach = all). Each rank takes the blocks in document
// order, two of them in flight ahead of the one in use. Within a node they pass through its shared
// memory (NodeSegments); between nodes they are MPI messages, through pinned memory where the
// device has its own.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "exchange/node_segments.h"
#include "mpi/communicator.h"
#include "star/kv.h"

namespace starattn {

class SegmentExchange {
 public:
  // node: the ranks that share memory with this one (Communicator::split_by_node). computing[i]:
  // block i is encoded in this run (not loaded). Collective.
  SegmentExchange(const Communicator& group, Communicator node, const BlockPlan& plan,
                  Backend& backend, std::int64_t kv_width, std::int64_t n_layers,
                  const std::vector<bool>& computing);

  // Tokens of block j that `rank` needs for the blocks it computes: the whole block where it is in
  // reach, else the anchor, else none. Of a block of its own, too.
  std::int64_t n_needed(Rank rank, BlockId j) const {
    return n_needed_[static_cast<std::size_t>(rank)][static_cast<std::size_t>(j)];
  }

  // This rank's block j is complete in `layer`: send it to all who need it. Blocks ascending.
  void send(BlockId j, std::int64_t layer, const KvCache& cache);
  // Begin to receive one layer's blocks. Layers 0, 1, ... but for the last, which nobody needs.
  void start_layer();
  // Block j of this layer, from another rank; in document order. Good for the operations called
  // before the next call.
  KvSegment receive(BlockId j);
  void poll();
  void finish();

 private:
  static constexpr std::size_t kInFlight = 3;  // the one in use and two on their way
  struct Slot {
    Buffer k, v;
    BlockId block = -1;
    std::int64_t n_tokens = 0;
    std::uint64_t place = 0;  // among the blocks that come within the node
    Requests requests;        // of one that comes from another
    Buffer staging;           // its k, then v, where device memory is not host memory
  };
  struct Sent {  // one block's layer, to other nodes
    Requests requests;
    Buffer staging;  // what is being sent, as above
  };
  bool is_near(Rank rank) const { return near_ && near_->reaches(rank); }
  void post_next();
  void send_far(BlockId j, std::int64_t layer, const KvCache& cache);
  Buffer take_staging();
  void retire_first_sent();
  template <typename Condition>
  void wait_until(const Condition& is_true);

  const Communicator* group_;
  const BlockPlan* plan_;
  Backend* backend_;
  std::size_t row_bytes_;
  std::size_t block_bytes_;  // keys of a whole block in one layer, or values
  std::vector<std::vector<std::int64_t>> n_needed_;  // of each rank, of each block
  std::optional<NodeSegments> near_;
  std::vector<Slot> slots_;
  std::vector<BlockId> to_receive_;  // this layer's, in document order
  std::int64_t layer_ = -1;
  std::size_t n_posted_ = 0;
  std::size_t n_taken_ = 0;
  std::uint64_t n_near_ = 0;  // blocks that were asked for within the node, of all layers
  std::deque<Sent> sends_;
  std::vector<Buffer> spare_staging_;  // of those sent before: pinning memory is slow
};

}  // namespace starattn
