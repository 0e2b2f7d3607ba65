// SPDX-License-Identifier: Apache-2.0
// One layer's K and V of whole segments on their way from their owners to the ranks that need them
// (the blocks in reach; ring attention is reach = all). Each rank takes the segments in ascending
// order, two of them in flight ahead of the one in use, so nobody waits in a circle: of all
// segments that somebody still waits for, the first can always be sent and taken.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "exchange/channel.h"

namespace starattn {

class SegmentExchange {
 public:
  // Who has which segment, and how many of its first tokens each rank needs of it in a layer, of
  // its own ones, too. The same on every rank.
  struct Needs {
    std::vector<Rank> owners;                         // by segment
    std::vector<std::vector<std::int64_t>> n_tokens;  // by rank, by segment
  };

  // n_layers: those that are exchanged. The
  // channel outlives this, and carries nothing else until finish().
  SegmentExchange(Channel& channel, Rank me, Backend& backend, Needs needs, const KvLayout& layout,
                  std::int64_t n_layers);

  std::int64_t n_needed(Rank rank, std::int64_t segment) const {
    return needs_.n_tokens[static_cast<std::size_t>(rank)][static_cast<std::size_t>(segment)];
  }

  // Begins to receive one layer's segments.
  void start_layer();
  // This rank's segment in the layer, as the operations called so far leave it, to all who need it.
  // Segments ascending, each once a layer. Keys and values stay as they are until finish().
  void send(std::int64_t segment, Channel::Source k, Channel::Source v);
  // Another rank's segment that this one needs in the layer; ascending. Good for the operations
  // called before the next call.
  KvSegment receive(std::int64_t segment);
  void poll() { channel_->poll(); }
  void finish();

 private:
  static constexpr std::size_t kInFlight = 3;  // the one in use and two on their way
  struct Slot {
    Buffer k, v;
    Channel::Arrival has_k, has_v;
  };
  void ask_for_next();

  Channel* channel_;
  Rank me_;
  Needs needs_;
  bool is_f8_;
  std::size_t row_bytes_;
  std::int64_t n_layers_;
  std::vector<Slot> slots_;
  std::vector<std::int64_t> to_receive_;  // in a layer, ascending
  std::int64_t n_started_ = 0;            // layers
  std::int64_t next_to_send_ = 0;
  std::size_t n_asked_ = 0, n_taken_ = 0;  // segments of this layer
};

}  // namespace starattn
