// SPDX-License-Identifier: Apache-2.0
#include "exchange/segment_exchange.h"

#include <algorithm>

#include "exchange/poll_until.h"
#include "trace/range.h"

namespace starattn {
namespace {

// Messages between two ranks keep their order, so one tag for keys and one for values is enough.
constexpr int kKeyTag = 101;
constexpr int kValueTag = 102;

std::vector<std::vector<std::int64_t>> needs_of(const BlockPlan& plan, int n_ranks,
                                                const std::vector<bool>& computing) {
  std::vector<std::vector<std::int64_t>> needs(
      static_cast<std::size_t>(n_ranks),
      std::vector<std::int64_t>(static_cast<std::size_t>(plan.n_blocks()), 0));
  for (BlockId i = 0; i < plan.n_blocks(); ++i) {
    if (!computing[static_cast<std::size_t>(i)]) continue;
    std::vector<std::int64_t>& of_owner = needs[static_cast<std::size_t>(plan.owner(i))];
    of_owner[0] = std::max(of_owner[0], plan.anchor_of(i).n_tokens);
    for (BlockId j = plan.first_reached(i); j < i; ++j)
      of_owner[static_cast<std::size_t>(j)] = plan.block(j).n_tokens;
  }
  return needs;
}

}  // namespace

SegmentExchange::SegmentExchange(const Communicator& group, Communicator node,
                                 const BlockPlan& plan, Backend& backend, std::int64_t kv_width,
                                 std::int64_t n_layers, const std::vector<bool>& computing)
    : group_(&group),
      plan_(&plan),
      backend_(&backend),
      row_bytes_(static_cast<std::size_t>(kv_width) * size_of(backend.kv_dtype())),
      block_bytes_(static_cast<std::size_t>(std::min(plan.block_size(), plan.n_context())) *
                   row_bytes_),
      n_needed_(needs_of(plan, group.size(), computing)) {
  if (group.size() == 1) return;
  near_.emplace(group, std::move(node), plan, backend, kv_width, n_layers - 1,
                [this](Rank rank, BlockId j) { return n_needed(rank, j); });
  for (std::size_t i = 0; i < kInFlight; ++i) {
    Slot& slot = slots_.emplace_back();
    slot.k = backend.allocate(block_bytes_);
    slot.v = backend.allocate(block_bytes_);
  }
}

void SegmentExchange::send(BlockId j, std::int64_t layer, const KvCache& cache) {
  std::int64_t most = 0;
  for (Rank to = 0; to < group_->size(); ++to)
    if (to != group_->rank()) most = std::max(most, n_needed(to, j));
  if (most == 0) return;
  if (!backend_->is_host_memory()) {  // copies aside may begin
    if (cache.is_on_host()) backend_->order_after_copies(CopyDirection::to_host);
    backend_->synchronize([this] { poll(); });
  }
  near_->send(j, layer, cache);
  send_far(j, layer, cache);
  poll();
}

void SegmentExchange::send_far(BlockId j, std::int64_t layer, const KvCache& cache) {
  std::vector<std::size_t> n_bytes(static_cast<std::size_t>(group_->size()), 0);
  for (Rank to = 0; to < group_->size(); ++to) {
    if (to != group_->rank() && !is_near(to))
      n_bytes[static_cast<std::size_t>(to)] =
          static_cast<std::size_t>(n_needed(to, j)) * row_bytes_;
  }
  const std::size_t n_most = *std::ranges::max_element(n_bytes);
  if (n_most == 0) return;
  Sent& sent = sends_.emplace_back();
  const std::byte* k = cache.k(layer);
  const std::byte* v = cache.v(layer);
  if (!cache.is_on_host() && !backend_->is_host_memory()) {
    sent.staging = take_staging();
    std::byte* staging = sent.staging.data();
    backend_->copy_after_operations(CopyDirection::to_host, {k, n_most}, staging);
    backend_->copy_after_operations(CopyDirection::to_host, {v, n_most}, staging + n_most);
    backend_->order_after_copies(CopyDirection::to_host);
    backend_->synchronize();
    k = staging;
    v = staging + n_most;
  }
  for (Rank to = 0; to < group_->size(); ++to) {
    const std::size_t n = n_bytes[static_cast<std::size_t>(to)];
    if (n == 0) continue;
    group_->isend({k, n}, to, kKeyTag, sent.requests);
    group_->isend({v, n}, to, kValueTag, sent.requests);
    trace::count_bytes("segment exchange", 2 * n);
  }
}

Buffer SegmentExchange::take_staging() {
  if (spare_staging_.empty()) return backend_->allocate_pinned(2 * block_bytes_);
  Buffer staging = std::move(spare_staging_.back());
  spare_staging_.pop_back();
  return staging;
}

void SegmentExchange::retire_first_sent() {
  if (sends_.front().staging.data()) spare_staging_.push_back(std::move(sends_.front().staging));
  sends_.pop_front();
}

void SegmentExchange::start_layer() {
  STARATTN_CHECK(n_taken_ == to_receive_.size());
  ++layer_;
  to_receive_.clear();
  for (BlockId j = 0; j < plan_->n_blocks(); ++j) {
    if (plan_->owner(j) != group_->rank() && n_needed(group_->rank(), j) > 0)
      to_receive_.push_back(j);
  }
  n_posted_ = n_taken_ = 0;
  while (n_posted_ < std::min(kInFlight, to_receive_.size())) post_next();
}

void SegmentExchange::post_next() {
  const BlockId j = to_receive_[n_posted_];
  const Rank owner = plan_->owner(j);
  Slot& slot = slots_[n_posted_ % kInFlight];
  slot.block = j;
  slot.n_tokens = n_needed(group_->rank(), j);
  ++n_posted_;
  if (is_near(owner)) {
    near_->take(j, layer_, slot.k.data(), slot.v.data());
    slot.place = ++n_near_;
    return;
  }
  const std::size_t n_bytes = static_cast<std::size_t>(slot.n_tokens) * row_bytes_;
  std::byte* k = slot.k.data();
  std::byte* v = slot.v.data();
  if (!backend_->is_host_memory()) {
    if (!slot.staging.data()) slot.staging = backend_->allocate_pinned(2 * block_bytes_);
    wait_until(
        [&] { return backend_->copies_done(CopyDirection::to_device); });  // out of the staging
    k = slot.staging.data();
    v = k + n_bytes;
  }
  group_->irecv({k, n_bytes}, owner, kKeyTag, slot.requests);
  group_->irecv({v, n_bytes}, owner, kValueTag, slot.requests);
}

KvSegment SegmentExchange::receive(BlockId j) {
  // The segment handed out before this one is no longer in use: its slot takes the next block.
  if (n_taken_ > 0 && n_posted_ < to_receive_.size() && n_posted_ < n_taken_ + kInFlight)
    post_next();
  Slot& slot = slots_[n_taken_ % kInFlight];
  STARATTN_CHECK(n_taken_ < to_receive_.size() && slot.block == j);
  ++n_taken_;
  if (is_near(plan_->owner(j))) {
    wait_until([&] { return near_->n_taken() >= slot.place; });
  } else {
    wait_until([&] { return slot.requests.test(); });
    if (const std::byte* staging = slot.staging.data()) {
      const std::size_t n_bytes = static_cast<std::size_t>(slot.n_tokens) * row_bytes_;
      backend_->copy_after_operations(CopyDirection::to_device, {staging, n_bytes}, slot.k.data());
      backend_->copy_after_operations(CopyDirection::to_device, {staging + n_bytes, n_bytes},
                                      slot.v.data());
    }
  }
  backend_->order_after_copies(CopyDirection::to_device);
  return {slot.k.data(), slot.v.data(), slot.n_tokens, false};
}

void SegmentExchange::poll() {
  if (!near_) return;
  for (Slot& slot : slots_) slot.requests.test();
  while (!sends_.empty() && sends_.front().requests.test()) retire_first_sent();
  while (near_->step()) {
  }
}

template <typename Condition>
void SegmentExchange::wait_until(const Condition& is_true) {
  poll_until(
      "wait for segments", [this] { poll(); }, is_true);
}

void SegmentExchange::finish() {
  if (!near_) return;
  wait_until([&] { return sends_.empty() && near_->is_finished(); });
}

}  // namespace starattn
