// SPDX-License-Identifier: Apache-2.0
// The anchor's K and V on their way from block 0's owner, the root, to every rank with blocks,
// layer by layer, beside the computation. The root sends to the members on its node and to one
// leader on another; each leader sends what it has on to its node's members and to the next leader.
// Everything moves inside poll().
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "exchange/channel.h"

namespace starattn {

class AnchorBroadcast {
 public:
  // nodes: of each rank (GroupChannel::nodes). is_member: whether each takes part; the root among
  // them. n_layers: those that are sent. Collective over the members. The channel outlives this,
  // and carries nothing else until finish().
  AnchorBroadcast(Channel& channel, Rank me, const std::vector<Rank>& nodes,
                  const std::vector<bool>& is_member, Rank root, Backend& backend,
                  std::int64_t n_layers, std::int64_t anchor_size, const KvLayout& layout);

  // Root: the next layer's keys and values, as the operations called so far leave their first
  // anchor_size tokens. Layers 0, 1, ... n_layers - 1. They stay as they are until finish().
  void send(Channel::Source k, Channel::Source v);
  // On the other members: the anchor in one layer, as soon as it is there.
  KvSegment wait(std::int64_t layer);
  void poll();
  void finish();  // nobody waits for this rank any more

 private:
  // Messages of at most Channel::kPieceBytes, so that leaders hand on what has come while more
  // comes: of the keys of layer 0, its values, the keys of layer 1, ...
  std::span<std::byte> message(std::size_t i) const {
    const std::size_t offset = i % messages_a_half_ * Channel::kPieceBytes;
    return {received_.data() + i / messages_a_half_ * half_bytes_ + offset,
            std::min(Channel::kPieceBytes, half_bytes_ - offset)};
  }
  std::size_t n_messages_through(std::int64_t layer) const {
    return static_cast<std::size_t>(layer + 1) * 2 * messages_a_half_;
  }
  void send_on(Channel::Source source, std::size_t n_bytes);

  Channel* channel_;
  bool is_f8_;              // keys and values
  std::size_t half_bytes_;  // of one layer's keys, or values
  std::size_t messages_a_half_;
  std::int64_t anchor_size_;
  std::int64_t n_layers_;
  bool is_root_;
  std::int64_t n_sent_ = 0;    // root: layers
  std::vector<Rank> readers_;  // of this rank's messages
  Buffer received_;            // not on the root: [n_layers][k, v][anchor_size]
  std::vector<Channel::Arrival> arrivals_;
  std::size_t n_handed_on_ = 0;  // messages
};

}  // namespace starattn
