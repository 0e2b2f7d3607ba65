// SPDX-License-Identifier: Apache-2.0
#include "exchange/anchor_broadcast.h"

#include <algorithm>

#include "base/error.h"
#include "trace/range.h"

namespace starattn {
namespace {

constexpr const char* kWait = "wait for anchor";
constexpr const char* kBytes = "anchor broadcast";

// One rank a node with members, the root for its own: the root, then the lowest of each other node.
std::vector<Rank> leaders_of(const std::vector<Rank>& nodes, const std::vector<bool>& is_member,
                             Rank root) {
  std::vector<Rank> leaders{root};
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const auto is_of_this_node = [&](Rank leader) {
      return nodes[static_cast<std::size_t>(leader)] == nodes[i];
    };
    if (is_member[i] && std::ranges::none_of(leaders, is_of_this_node))
      leaders.push_back(static_cast<Rank>(i));
  }
  return leaders;
}

}  // namespace

AnchorBroadcast::AnchorBroadcast(Channel& channel, Rank me, const std::vector<Rank>& nodes,
                                 const std::vector<bool>& is_member, Rank root, Backend& backend,
                                 std::int64_t n_layers, std::int64_t anchor_size,
                                 const KvLayout& layout)
    : channel_(&channel),
      is_f8_(layout.is_f8()),
      half_bytes_(static_cast<std::size_t>(anchor_size) * layout.row_bytes()),
      messages_a_half_((half_bytes_ + Channel::kPieceBytes - 1) / Channel::kPieceBytes),
      anchor_size_(anchor_size),
      n_layers_(n_layers),
      is_root_(me == root) {
  STARATTN_CHECK(anchor_size > 0 && is_member[static_cast<std::size_t>(root)]);
  STARATTN_CHECK(channel.is_idle());
  if (!is_member[static_cast<std::size_t>(me)]) return;
  const std::vector<Rank> leaders = leaders_of(nodes, is_member, root);
  const Rank my_node = nodes[static_cast<std::size_t>(me)];
  const auto mine = std::ranges::find_if(
      leaders, [&](Rank leader) { return nodes[static_cast<std::size_t>(leader)] == my_node; });
  Rank source = *mine;
  if (*mine == me) {
    if (!is_root_) source = *(mine - 1);
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (is_member[i] && nodes[i] == my_node && static_cast<Rank>(i) != me)
        readers_.push_back(static_cast<Rank>(i));
    if (mine + 1 != leaders.end()) readers_.push_back(*(mine + 1));
  }
  if (is_root_) return;
  received_ = backend.allocate(static_cast<std::size_t>(n_layers) * 2 * half_bytes_);
  for (std::size_t i = 0; i < n_messages_through(n_layers - 1); ++i) {
    arrivals_.push_back(channel.receive(source, message(i)));
    trace::count_bytes(kBytes, message(i).size());
  }
}

void AnchorBroadcast::send(Channel::Source k, Channel::Source v) {
  STARATTN_CHECK(is_root_ && n_sent_ < n_layers_);
  ++n_sent_;
  for (const Channel::Source& half : {k, v}) {
    for (std::size_t at = 0; at < half_bytes_; at += Channel::kPieceBytes) {
      const std::size_t n_bytes = std::min(Channel::kPieceBytes, half_bytes_ - at);
      trace::count_bytes(kBytes, n_bytes);
      send_on({half.data + at, half.is_on_host}, n_bytes);
    }
  }
  poll();
}

void AnchorBroadcast::send_on(Channel::Source source, std::size_t n_bytes) {
  std::vector<Channel::Reader> readers;
  for (const Rank rank : readers_) readers.push_back({rank, n_bytes});
  channel_->send(source, readers);
}

KvSegment AnchorBroadcast::wait(std::int64_t layer) {
  STARATTN_CHECK(!is_root_ && layer >= 0 && layer < n_layers_);
  const Channel::Arrival last = arrivals_.at(n_messages_through(layer) - 1);
  poll_until(
      kWait, [this] { poll(); }, [&] { return channel_->has_arrived(last); });
  const std::byte* k = received_.data() + 2 * static_cast<std::size_t>(layer) * half_bytes_;
  return {k, k + half_bytes_, anchor_size_, false, is_f8_};
}

void AnchorBroadcast::poll() {
  channel_->poll();
  if (is_root_ || readers_.empty()) return;
  while (n_handed_on_ < arrivals_.size() && channel_->has_arrived(arrivals_[n_handed_on_])) {
    const std::span<std::byte> next = message(n_handed_on_++);
    send_on({next.data()}, next.size());
  }
  channel_->poll();
}

void AnchorBroadcast::finish() {
  STARATTN_CHECK(!is_root_ || n_sent_ == n_layers_);
  poll_until(
      kWait, [this] { poll(); },
      [this] {
        const bool has_handed_on = readers_.empty() || n_handed_on_ == arrivals_.size();
        return has_handed_on && channel_->is_idle();
      });
  for (const Channel::Arrival& arrival : arrivals_) STARATTN_CHECK(channel_->has_arrived(arrival));
}

}  // namespace starattn
