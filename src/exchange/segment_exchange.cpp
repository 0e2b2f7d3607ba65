// SPDX-License-Identifier: Apache-2.0
#include "exchange/segment_exchange.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "trace/range.h"

namespace starattn {
namespace {

constexpr const char* kWait = "wait for segments";
constexpr const char* kBytes = "segment exchange";

}  // namespace

SegmentExchange::SegmentExchange(Channel& channel, Rank me, Backend& backend, Needs needs,
                                 const KvLayout& layout, std::int64_t n_layers)
    : channel_(&channel),
      me_(me),
      needs_(std::move(needs)),
      is_f8_(layout.is_f8()),
      row_bytes_(layout.row_bytes()),
      n_layers_(n_layers) {
  STARATTN_CHECK(channel.is_idle());
  std::int64_t most = 0;
  for (std::int64_t j = 0; j < std::ssize(needs_.owners); ++j) {
    if (needs_.owners[static_cast<std::size_t>(j)] == me_ || n_needed(me_, j) == 0) continue;
    to_receive_.push_back(j);
    most = std::max(most, n_needed(me_, j));
  }
  n_taken_ = to_receive_.size();
  slots_.resize(std::min(kInFlight, to_receive_.size()));
  for (Slot& slot : slots_) {
    slot.k = backend.allocate(static_cast<std::size_t>(most) * row_bytes_);
    slot.v = backend.allocate(static_cast<std::size_t>(most) * row_bytes_);
  }
}

void SegmentExchange::send(std::int64_t segment, Channel::Source k, Channel::Source v) {
  STARATTN_CHECK(needs_.owners.at(static_cast<std::size_t>(segment)) == me_);
  STARATTN_CHECK(segment >= next_to_send_);
  next_to_send_ = segment + 1;
  std::vector<Channel::Reader> readers;
  std::size_t most = 0;
  for (Rank rank = 0; rank < std::ssize(needs_.n_tokens); ++rank) {
    const std::size_t n_bytes = static_cast<std::size_t>(n_needed(rank, segment)) * row_bytes_;
    if (rank == me_ || n_bytes == 0) continue;
    readers.push_back({rank, n_bytes});
    most = std::max(most, n_bytes);
  }
  if (readers.empty()) return;
  channel_->send(k, readers);
  channel_->send(v, readers);
  trace::count_bytes(kBytes, 2 * most);
  poll();
}

void SegmentExchange::start_layer() {
  STARATTN_CHECK(n_taken_ == to_receive_.size() && n_started_ < n_layers_);
  ++n_started_;
  next_to_send_ = 0;
  n_asked_ = n_taken_ = 0;
  while (n_asked_ < slots_.size()) ask_for_next();
}

void SegmentExchange::ask_for_next() {
  const std::int64_t j = to_receive_[n_asked_];
  const Rank owner = needs_.owners[static_cast<std::size_t>(j)];
  const std::size_t n_bytes = static_cast<std::size_t>(n_needed(me_, j)) * row_bytes_;
  Slot& slot = slots_[n_asked_ % kInFlight];
  slot.has_k = channel_->receive(owner, {slot.k.data(), n_bytes});
  slot.has_v = channel_->receive(owner, {slot.v.data(), n_bytes});
  trace::count_bytes(kBytes, 2 * n_bytes);
  ++n_asked_;
}

KvSegment SegmentExchange::receive(std::int64_t segment) {
  STARATTN_CHECK(n_taken_ < to_receive_.size() && to_receive_[n_taken_] == segment);
  // The segment handed out before this one is no longer in use: its slot takes the next one.
  if (n_taken_ > 0 && n_asked_ < to_receive_.size()) ask_for_next();
  const Slot& slot = slots_[n_taken_++ % kInFlight];
  channel_->wait(slot.has_k, kWait);
  channel_->wait(slot.has_v, kWait);
  return {slot.k.data(), slot.v.data(), n_needed(me_, segment), false, is_f8_};
}

void SegmentExchange::finish() {
  STARATTN_CHECK(n_taken_ == to_receive_.size());
  channel_->wait_until_idle(kWait);
}

}  // namespace starattn
