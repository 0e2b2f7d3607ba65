// SPDX-License-Identifier: Apache-2.0
// SegmentExchange's way within a node: each rank puts its blocks' keys and values into a channel of
// the node's stage, piece by piece, and every other rank copies out what it needs. Everything moves
// inside step().
//
// Nobody waits in a circle: all ranks take blocks in the order of layers and of the document, so
// the first piece in this order that somebody still waits for is at the front of its channel.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "exchange/node_stage.h"
#include "star/kv.h"
#include "star/plan.h"

namespace starattn {

class NodeSegments {
 public:
  // n_needed(rank, j): tokens of block j that the rank needs, the same for every layer. n_layers:
  // those that are exchanged. Collective over the group.
  NodeSegments(const Communicator& group, Communicator node, const BlockPlan& plan,
               Backend& backend, std::int64_t kv_width, std::int64_t n_layers,
               const std::function<std::int64_t(Rank, BlockId)>& n_needed);

  bool reaches(Rank rank) const { return channel_of(rank).has_value(); }  // on this node, another
  // This rank's block j is complete in `layer`. Blocks ascending in every layer. The cache must
  // outlive finish().
  void send(BlockId j, std::int64_t layer, const KvCache& cache);
  // Begin to bring what this rank needs of block j to k and v on the device, in the order above.
  // Operations called before may still use them; later ones do not before n_taken().
  void take(BlockId j, std::int64_t layer, std::byte* k, std::byte* v);
  // Of the blocks that take() was called for: those that are on the device completely.
  std::uint64_t n_taken() const { return n_taken_; }
  bool step();               // one step of what is possible; false when nothing was
  bool is_finished() const;  // nobody waits for this rank any more

 private:
  // Of one block in a channel: keys in pieces, then values.
  struct Place {
    int channel = 0;
    std::uint64_t first_piece = 0;    // in layer 0
    std::uint64_t pieces_a_part = 0;  // of what the channel carries: the most that anyone needs
    std::size_t part_bytes = 0;       // of it
    std::size_t needed_bytes = 0;     // of a part, by this rank
  };
  struct Channel {
    Rank owner = 0;
    std::vector<BlockId> blocks;      // ascending, those that anybody here needs
    std::vector<std::size_t> takers;  // indices in the stage's ranks
    std::uint64_t pieces_a_layer = 0;
  };
  struct Sending {
    const std::byte* parts[2] = {};
    bool is_on_host = false;
    Place place;
  };
  struct Taking {
    BlockId block = 0;
    std::int64_t layer = 0;
    std::byte* parts[2] = {};
    std::uint64_t n_begun = 0, n_done = 0;  // pieces of this rank's
  };

  std::optional<int> channel_of(Rank rank) const;  // of another
  std::uint64_t pieces_for(std::size_t n_bytes) const {
    return (n_bytes + piece_bytes_ - 1) / piece_bytes_;
  }
  std::byte* slot(int channel, std::uint64_t piece) const {
    return stage_->data(channel) + piece % n_slots_ * piece_bytes_;
  }
  std::uint64_t piece_of(const Taking& taking, std::uint64_t i) const;  // its i-th, in its channel
  // The first piece of a channel that this rank needs of blocks from `from` on, or of later layers.
  std::uint64_t next_needed(int channel, std::int64_t layer, BlockId from) const;
  bool fill();
  bool fetch();

  Backend* backend_;
  Rank me_;
  std::int64_t n_layers_;
  std::size_t piece_bytes_;
  std::uint64_t n_slots_ = 0;
  std::optional<NodeStage> stage_;
  std::vector<Channel> channels_;  // as stage_->ranks()
  std::vector<Place> places_;      // of every block, where it has one

  std::deque<Sending> sending_;
  std::uint64_t n_begun_ = 0;   // pieces of this rank's channel: on their way into it
  std::uint64_t n_filled_ = 0;  // that are there
  std::uint64_t n_to_fill_ = 0;
  std::uint64_t n_sent_before_ = 0;  // pieces of blocks that are no longer in sending_
  std::deque<Taking> taking_;
  std::uint64_t n_taken_ = 0;
};

}  // namespace starattn
