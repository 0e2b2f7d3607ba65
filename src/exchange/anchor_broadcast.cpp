// SPDX-License-Identifier: Apache-2.0
#include "exchange/anchor_broadcast.h"

#include <algorithm>
#include <cstring>

#include "exchange/poll_until.h"
#include "trace/range.h"

namespace starattn {
namespace {

constexpr const char* kWait = "wait for anchor";

// One rank a node takes part in the broadcast between nodes: the root, or the lowest member.
bool is_leader(const Communicator& group, const NodeStage& stage,
               const std::vector<bool>& is_member, Rank root) {
  const std::vector<Rank>& node = stage.ranks();
  if (std::find(node.begin(), node.end(), root) != node.end()) return group.rank() == root;
  const auto lowest = std::find_if(node.begin(), node.end(), [&](Rank rank) {
    return is_member[static_cast<std::size_t>(rank)];
  });
  return lowest != node.end() && *lowest == group.rank();
}

}  // namespace

AnchorBroadcast::AnchorBroadcast(const Communicator& group, NodeStage& stage,
                                 const std::vector<bool>& is_member, Rank root, Backend& backend,
                                 std::int64_t n_layers, std::int64_t anchor_size,
                                 std::int64_t kv_width)
    : stage_(&stage),
      backend_(&backend),
      leaders_(group.split(is_leader(group, stage, is_member, root) ? 0 : -1)),
      is_root_(group.rank() == root),
      takes_(is_member[static_cast<std::size_t>(group.rank())] && !is_root_),
      part_bytes_(static_cast<std::size_t>(anchor_size * kv_width) * size_of(backend.kv_dtype())),
      piece_bytes_(std::min(part_bytes_, NodeStage::kMostPieceBytes)),
      pieces_per_part_((part_bytes_ + piece_bytes_ - 1) / piece_bytes_),
      n_pieces_(n_pieces_through(n_layers - 2)),
      n_slots_(std::min<std::uint64_t>(kMaxSlots, stage.channel_bytes() / piece_bytes_)),
      anchor_size_(anchor_size),
      requests_(n_slots_) {
  for (std::size_t i = 0; i < stage.ranks().size(); ++i) {
    const Rank rank = stage.ranks()[i];
    if (rank != root && is_member[static_cast<std::size_t>(rank)]) takers_.push_back(i);
  }
  if (leaders_.is_member()) {
    const std::vector<char> roots = leaders_.allgather(static_cast<char>(is_root_));
    root_leader_ = static_cast<Rank>(std::find(roots.begin(), roots.end(), 1) - roots.begin());
  }
  if (takes_) {
    received_ = KvCache(backend, n_layers - 1, anchor_size, kv_width);
    backend.synchronize();  // copies aside need the memory now
  }
  stage.begin();
}

AnchorBroadcast::Piece AnchorBroadcast::piece(std::uint64_t i) const {
  const std::uint64_t part = i / pieces_per_part_;
  const std::size_t offset = i % pieces_per_part_ * piece_bytes_;
  return {static_cast<std::int64_t>(part / 2), part % 2 == 1, offset,
          std::min(piece_bytes_, part_bytes_ - offset)};
}

std::uint64_t AnchorBroadcast::n_taken_by_all() const {
  std::uint64_t n = n_pieces_;
  for (const std::size_t taker : takers_) n = std::min(n, stage_->n_taken(kChannel, taker));
  return n;
}

bool AnchorBroadcast::is_free(std::uint64_t i) const {
  if (i < n_slots_) return true;
  const bool is_delivered = !is_root_ || n_delivered_ + n_slots_ > i;
  return is_delivered && n_taken_by_all() + n_slots_ > i;
}

void AnchorBroadcast::send(std::int64_t layer, const KvCache& block_0) {
  STARATTN_CHECK(is_root_);
  block_0_ = &block_0;
  if (n_ready_ == n_pieces_) return;
  if (block_0.is_on_host()) {  // where it may still be on its way to
    backend_->order_after_copies(CopyDirection::to_host);
    backend_->synchronize();
  }
  n_ready_ = n_pieces_through(layer);
  poll();
}

KvSegment AnchorBroadcast::wait(std::int64_t layer) {
  STARATTN_CHECK(takes_);
  poll_until(
      kWait, [this] { poll(); }, [&] { return n_taken_ >= n_pieces_through(layer); });
  return received_.segment(layer, anchor_size_);
}

void AnchorBroadcast::poll() {
  while (step()) {
  }
}

void AnchorBroadcast::finish() {
  poll_until(
      kWait, [this] { poll(); },
      [this] {
        if (takes_ && n_taken_ < n_pieces_) return false;
        if (!leaders_.is_member()) return true;
        const bool is_delivered = !is_root_ || n_delivered_ == n_pieces_;
        return n_filled_ == n_pieces_ && is_delivered && n_taken_by_all() == n_pieces_;
      });
}

bool AnchorBroadcast::step() {
  bool moved = false;
  if (is_root_) {
    moved = fill();
  } else if (leaders_.is_member()) {
    moved = receive();
  }
  return (takes_ && take()) || moved;
}

bool AnchorBroadcast::fill() {
  while (n_delivered_ < n_filled_ && requests(n_delivered_).test()) ++n_delivered_;
  if (n_filled_ < n_begun_) {
    if (!block_0_->is_on_host() && !backend_->copies_done(CopyDirection::to_host)) return false;
    const Piece arrived = piece(n_filled_);
    if (leaders_.size() > 1)
      leaders_.ibcast({slot(n_filled_), arrived.n_bytes}, root_leader_, requests(n_filled_));
    stage_->set_filled(kChannel, ++n_filled_);
    return true;
  }
  if (n_begun_ == n_ready_ || !is_free(n_begun_)) return false;
  const Piece next = piece(n_begun_);
  const std::byte* part = next.is_value ? block_0_->v(next.layer) : block_0_->k(next.layer);
  if (block_0_->is_on_host()) {  // the lane to the host may be waiting for the next layer
    std::memcpy(slot(n_begun_), part + next.offset, next.n_bytes);
  } else {
    backend_->copy_now(CopyDirection::to_host, {part + next.offset, next.n_bytes}, slot(n_begun_));
  }
  trace::count_bytes("anchor broadcast", next.n_bytes);
  ++n_begun_;
  return true;
}

bool AnchorBroadcast::receive() {
  if (n_filled_ < n_begun_ && requests(n_filled_).test()) {
    stage_->set_filled(kChannel, ++n_filled_);
    return true;
  }
  if (n_begun_ == n_pieces_ || !is_free(n_begun_)) return false;
  leaders_.ibcast({slot(n_begun_), piece(n_begun_).n_bytes}, root_leader_, requests(n_begun_));
  ++n_begun_;
  return true;
}

bool AnchorBroadcast::take() {
  if (n_taken_ < n_fetched_) {
    if (!backend_->copies_done(CopyDirection::to_device)) return false;
    stage_->set_taken(kChannel, n_taken_ = n_fetched_);
    return true;
  }
  if (n_fetched_ == stage_->n_filled(kChannel)) return false;
  const Piece next = piece(n_fetched_);
  std::byte* part = next.is_value ? received_.v(next.layer) : received_.k(next.layer);
  backend_->copy_now(CopyDirection::to_device, {slot(n_fetched_), next.n_bytes},
                     part + next.offset);
  trace::count_bytes("anchor broadcast", next.n_bytes);
  ++n_fetched_;
  return true;
}

}  // namespace starattn
