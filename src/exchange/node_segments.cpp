// SPDX-License-Identifier: Apache-2.0
#include "exchange/node_segments.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "trace/range.h"

namespace starattn {
namespace {

constexpr std::size_t kMostSlots = 8;
constexpr std::size_t kLeastBytes = std::size_t{64} << 10;  // of a channel

}  // namespace

NodeSegments::NodeSegments(const Communicator& group, Communicator node, const BlockPlan& plan,
                           Backend& backend, std::int64_t kv_width, std::int64_t n_layers,
                           const std::function<std::int64_t(Rank, BlockId)>& n_needed)
    : backend_(&backend),
      me_(group.rank()),
      n_layers_(n_layers),
      places_(static_cast<std::size_t>(plan.n_blocks())) {
  const std::size_t row_bytes = static_cast<std::size_t>(kv_width) * size_of(backend.kv_dtype());
  const auto longest = static_cast<std::size_t>(std::min(plan.block_size(), plan.n_context()));
  const int n_channels = node.size();
  const std::size_t most_bytes = std::max(NodeStage::room_a_channel(node, n_channels), kLeastBytes);
  piece_bytes_ = std::min({longest * row_bytes, NodeStage::kMostPieceBytes, most_bytes / 4});
  const std::size_t slots_bytes = std::min(kMostSlots * piece_bytes_, most_bytes);
  // A rank that is alone on its node brings nothing within it.
  stage_.emplace(group, std::move(node), backend, n_channels, n_channels > 1 ? slots_bytes : 0);
  n_slots_ = slots_bytes / piece_bytes_;

  const std::vector<Rank>& ranks = stage_->ranks();
  for (const Rank owner : ranks) {
    Channel& channel = channels_.emplace_back();
    channel.owner = owner;
    for (std::size_t i = 0; i < ranks.size(); ++i)
      if (ranks[i] != owner) channel.takers.push_back(i);
    for (const BlockId j : plan.blocks_of(owner)) {
      std::int64_t most = 0;
      for (const Rank rank : ranks)
        if (rank != owner) most = std::max(most, n_needed(rank, j));
      if (most == 0) continue;
      Place& place = places_[static_cast<std::size_t>(j)];
      place.channel = static_cast<int>(channels_.size()) - 1;
      place.first_piece = channel.pieces_a_layer;
      place.part_bytes = static_cast<std::size_t>(most) * row_bytes;
      place.pieces_a_part = pieces_for(place.part_bytes);
      if (owner != me_) place.needed_bytes = static_cast<std::size_t>(n_needed(me_, j)) * row_bytes;
      channel.blocks.push_back(j);
      channel.pieces_a_layer += 2 * place.pieces_a_part;
    }
  }
  stage_->begin();
  for (std::size_t c = 0; c < channels_.size(); ++c) {
    const int channel = static_cast<int>(c);
    if (channels_[c].owner != me_) stage_->set_taken(channel, next_needed(channel, 0, 0));
  }
}

std::optional<int> NodeSegments::channel_of(Rank rank) const {
  const std::vector<Rank>& ranks = stage_->ranks();
  const auto found = std::ranges::find(ranks, rank);
  if (rank == me_ || found == ranks.end()) return std::nullopt;
  return static_cast<int>(found - ranks.begin());
}

std::uint64_t NodeSegments::next_needed(int channel, std::int64_t layer, BlockId from) const {
  const Channel& source = channels_[static_cast<std::size_t>(channel)];
  for (; layer < n_layers_; ++layer, from = 0) {
    for (const BlockId j : source.blocks) {
      const Place& place = places_[static_cast<std::size_t>(j)];
      if (j >= from && place.needed_bytes > 0)
        return static_cast<std::uint64_t>(layer) * source.pieces_a_layer + place.first_piece;
    }
  }
  return static_cast<std::uint64_t>(n_layers_) * source.pieces_a_layer;
}

void NodeSegments::send(BlockId j, std::int64_t layer, const KvCache& cache) {
  const Place& place = places_[static_cast<std::size_t>(j)];
  if (place.pieces_a_part == 0) return;
  sending_.push_back({{cache.k(layer), cache.v(layer)}, cache.is_on_host(), place});
  n_to_fill_ += 2 * place.pieces_a_part;
}

void NodeSegments::take(BlockId j, std::int64_t layer, std::byte* k, std::byte* v) {
  backend_->copy_after_operations(CopyDirection::to_device, {},
                                  nullptr);  // copies from here on wait for who uses k, v
  taking_.push_back({j, layer, {k, v}});
}

bool NodeSegments::is_finished() const {
  if (n_filled_ < n_to_fill_) return false;
  for (std::size_t c = 0; c < channels_.size(); ++c) {
    if (channels_[c].owner != me_) continue;
    for (const std::size_t taker : channels_[c].takers)
      if (stage_->n_taken(static_cast<int>(c), taker) < n_to_fill_) return false;
  }
  return true;
}

bool NodeSegments::step() {
  const bool moved = fill();
  return fetch() || moved;
}

// From this rank's blocks into its channel.
bool NodeSegments::fill() {
  if (sending_.empty()) return false;
  const Sending& block = sending_.front();
  const int channel = block.place.channel;
  if (n_filled_ < n_begun_) {
    if (!block.is_on_host && !backend_->copies_done(CopyDirection::to_host)) return false;
    stage_->set_filled(channel, n_filled_ = n_begun_);
    if (n_filled_ == n_sent_before_ + 2 * block.place.pieces_a_part) {
      n_sent_before_ = n_filled_;
      sending_.pop_front();
    }
    return true;
  }
  for (const std::size_t taker : channels_[static_cast<std::size_t>(channel)].takers)
    if (stage_->n_taken(channel, taker) + n_slots_ <= n_begun_) return false;
  const std::uint64_t i = n_begun_ - n_sent_before_;
  const std::size_t offset = i % block.place.pieces_a_part * piece_bytes_;
  const std::size_t n_bytes = std::min(piece_bytes_, block.place.part_bytes - offset);
  const std::byte* from = block.parts[i / block.place.pieces_a_part] + offset;
  if (block.is_on_host) {
    std::memcpy(slot(channel, n_begun_), from, n_bytes);
  } else {
    backend_->copy_now(CopyDirection::to_host, {from, n_bytes}, slot(channel, n_begun_));
  }
  trace::count_bytes("segment exchange", n_bytes);
  ++n_begun_;
  return true;
}

std::uint64_t NodeSegments::piece_of(const Taking& taking, std::uint64_t i) const {
  const Place& place = places_[static_cast<std::size_t>(taking.block)];
  const std::uint64_t n = pieces_for(place.needed_bytes);  // of a part
  return place.first_piece + i / n * place.pieces_a_part + i % n;
}

// From others' channels to the device.
bool NodeSegments::fetch() {
  if (taking_.empty()) return false;
  Taking& block = taking_.front();
  const Place& place = places_[static_cast<std::size_t>(block.block)];
  const int channel = place.channel;
  const std::uint64_t before = static_cast<std::uint64_t>(block.layer) *
                               channels_[static_cast<std::size_t>(channel)].pieces_a_layer;
  const std::uint64_t n_a_part = pieces_for(place.needed_bytes);
  if (block.n_done < block.n_begun) {
    if (!backend_->copies_done(CopyDirection::to_device)) return false;
    block.n_done = block.n_begun;
    const bool is_last = block.n_done == 2 * n_a_part;
    stage_->set_taken(channel, is_last ? next_needed(channel, block.layer, block.block + 1)
                                       : before + piece_of(block, block.n_done));
    if (is_last) {
      ++n_taken_;
      taking_.pop_front();
    }
    return true;
  }
  const std::uint64_t n_filled = stage_->n_filled(channel);
  for (; block.n_begun < 2 * n_a_part; ++block.n_begun) {
    const std::uint64_t piece = before + piece_of(block, block.n_begun);
    if (piece >= n_filled) break;
    const std::size_t offset = block.n_begun % n_a_part * piece_bytes_;
    const std::size_t n_bytes = std::min(piece_bytes_, place.needed_bytes - offset);
    const std::span<const std::byte> from(slot(channel, piece), n_bytes);
    std::byte* to = block.parts[block.n_begun / n_a_part] + offset;
    backend_->copy_now(CopyDirection::to_device, from, to);
    trace::count_bytes("segment exchange", n_bytes);
  }
  return block.n_done < block.n_begun;
}

}  // namespace starattn
