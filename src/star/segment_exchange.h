// SPDX-License-Identifier: Apache-2.0
// One layer's K and V of whole blocks on their way from their owners to the ranks whose blocks
// reach them (reach > 0; ring attention is reach = all). Each rank takes the blocks in document
// order, two of them in flight ahead of the one in use, and sends its own straight from its cache;
// where the cache is a device's memory, both pass through pinned host memory.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "mpi/communicator.h"
#include "star/kv.h"

namespace starattn {

class SegmentExchange {
 public:
  SegmentExchange(const Communicator& group, const BlockPlan& plan, Backend& backend,
                  std::int64_t kv_width);

  // Tokens of block j that `rank` needs for the blocks it computes: the whole block where it is in
  // reach, else the anchor, else none. computing[i]: block i is encoded in this run (not loaded).
  std::int64_t n_needed(Rank rank, BlockId j) const;
  void set_computing(std::vector<bool> computing) { computing_ = std::move(computing); }

  // This rank's block j is complete in `layer`: send it to all who need it.
  void send(BlockId j, std::int64_t layer, const KvCache& cache);
  // Post the receives of one layer; the blocks this rank needs from others, in document order.
  void start_layer();
  // Block j of this layer, from another rank; in document order. Valid until the next call.
  KvSegment receive(BlockId j);
  void poll();
  void finish();

 private:
  static constexpr std::size_t kInFlight = 3;  // the one in use and two on their way
  struct Slot {
    Buffer k, v;
    Buffer staging;  // k, then v, where device memory is not host memory
    Requests requests;
    BlockId block = -1;
    std::int64_t n_tokens = 0;
  };
  struct Sent {  // one block's layer, to all who need it
    Requests requests;
    Buffer staging;  // what is being sent, as above
  };
  void post_next();
  Buffer take_staging();
  void retire_first_sent();

  const Communicator* group_;
  const BlockPlan* plan_;
  Backend* backend_;
  std::size_t row_bytes_;
  std::size_t block_bytes_;  // keys of a whole block in one layer, or values
  std::vector<bool> computing_;
  std::vector<Slot> slots_;
  std::vector<BlockId> to_receive_;  // this layer's, in document order
  std::size_t n_posted_ = 0;
  std::size_t n_taken_ = 0;
  std::deque<Sent> sends_;
  std::vector<Buffer> spare_staging_;  // of those sent before: pinning memory is slow
};

}  // namespace starattn
