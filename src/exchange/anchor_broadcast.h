// SPDX-License-Identifier: Apache-2.0
// The anchor's K and V on their way from block 0's owner to every rank with blocks, layer by layer,
// beside the computation. In two levels: the owner copies each piece once into the memory that its
// node's ranks share (NodeStage), and each of them copies it out; between nodes the pieces travel
// from the owner to one leader a node, which puts them into its own node's. Everything moves inside
// poll(): MPI does nothing in the background.
#pragma once

#include <cstdint>
#include <vector>

#include "exchange/node_stage.h"
#include "mpi/communicator.h"
#include "star/kv.h"

namespace starattn {

class AnchorBroadcast {
 public:
  // Collective over the group. is_member: whether each of its ranks takes part; root, block 0's
  // owner, among them. The last layer is not sent: no context row attends in it, since phase 1 ends
  // with its keys and values.
  AnchorBroadcast(const Communicator& group, NodeStage& stage, const std::vector<bool>& is_member,
                  Rank root, Backend& backend, std::int64_t n_layers, std::int64_t anchor_size,
                  std::int64_t kv_width);

  // Root: layer `layer` of block 0 is in `block_0`, and all that computed it has finished. Layers
  // in ascending order, each once.
  void send(std::int64_t layer, const KvCache& block_0);
  // On the other members: the anchor in one layer, as soon as it is there.
  KvSegment wait(std::int64_t layer);
  void poll();
  void finish();  // nobody waits for this rank any more

 private:
  // Pieces of at most NodeStage::kMostPieceBytes: of the keys of layer 0, its values, the keys of
  // layer 1, ...
  static constexpr std::uint64_t kMaxSlots = 64;
  static constexpr int kChannel = 0;
  struct Piece {
    std::int64_t layer = 0;
    bool is_value = false;
    std::size_t offset = 0;  // into the layer's keys or values
    std::size_t n_bytes = 0;
  };
  Piece piece(std::uint64_t i) const;
  std::uint64_t n_pieces_through(std::int64_t layer) const {
    return static_cast<std::uint64_t>(layer + 1) * 2 * pieces_per_part_;
  }
  std::byte* slot(std::uint64_t i) const {
    return stage_->data(kChannel) + i % n_slots_ * piece_bytes_;
  }
  Requests& requests(std::uint64_t i) { return requests_[i % n_slots_]; }
  std::uint64_t n_taken_by_all() const;  // of this node
  bool is_free(std::uint64_t i) const;   // its slot

  // Each does one step, if one is possible, and says whether.
  bool step();
  bool fill();     // root: from the device into the stage, and off to the other leaders
  bool receive();  // another leader: from the root into the stage
  bool take();     // other members: from the stage to the device

  NodeStage* stage_;
  Backend* backend_;
  Communicator leaders_;  // one rank a node, the root for its own
  Rank root_leader_ = 0;
  bool is_root_;
  bool takes_;
  std::vector<std::size_t> takers_;  // of this node: indices in stage_->ranks()

  std::size_t part_bytes_;  // of one layer's keys, or values
  std::size_t piece_bytes_;
  std::uint64_t pieces_per_part_;
  std::uint64_t n_pieces_;
  std::uint64_t n_slots_;
  std::int64_t anchor_size_;

  KvCache received_;                  // not on the root
  const KvCache* block_0_ = nullptr;  // on the root
  std::uint64_t n_ready_ = 0;         // root: pieces that were computed
  std::uint64_t n_begun_ = 0;         // leader: pieces on their way into the stage
  std::uint64_t n_filled_ = 0;        //         that are there
  std::uint64_t n_delivered_ = 0;     // root: that the other leaders have
  std::uint64_t n_fetched_ = 0;       // member: pieces on their way out of the stage
  std::uint64_t n_taken_ = 0;         //         that are out
  std::vector<Requests> requests_;    // [n_slots], between leaders
};

}  // namespace starattn
