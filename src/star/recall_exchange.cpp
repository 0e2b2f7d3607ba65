// SPDX-License-Identifier: Apache-2.0
#include "star/recall_exchange.h"

#include <algorithm>

#include "trace/range.h"

namespace starattn {
namespace {

constexpr int kCandidatesTag = 122;
constexpr int kWantedTag = 123;

// A message has the same tag as its kind; of several blocks in a wave each rank owns one, so rank
// and tag name it.
std::span<const std::byte> bytes_of(const std::byte* data, std::size_t n_bytes) {
  return {data, n_bytes};
}

}  // namespace

RecallExchange::RecallExchange(const Communicator& group, Channel* channel, Backend& backend,
                               const BlockPlan& plan, const AttentionShape& shape,
                               std::function<void()> poll)
    : group_(&group),
      channel_(channel),
      backend_(&backend),
      plan_(&plan),
      shape_(shape),
      has_f8_kv_(backend.kv_dtype() == Dtype::f8),
      row_bytes_(backend.kv_layout(shape).row_bytes()),
      messages_(group, backend, [channel, poll = std::move(poll)] {
        if (channel) channel->poll();
        poll();
      }) {
  STARATTN_CHECK(channel || is_alone());
}

std::int64_t RecallExchange::n_candidates(BlockId asking, Rank rank) const {
  return std::min(plan_->n_recalled(asking), n_tokens(parts_held(*plan_, rank, asking)));
}

std::size_t RecallExchange::ask_bytes(BlockId asking) const {
  const auto n_values = static_cast<std::size_t>(plan_->n_asking_rows(asking) * shape_.n_heads);
  return n_values *
         (static_cast<std::size_t>(shape_.head_dim) * size_of(backend_->activation_dtype()) +
          sizeof(float));
}

void RecallExchange::start_wave(std::span<const BlockId> asking) {
  asking_.clear();
  answering_.clear();
  own_ = -1;
  std::int64_t most_tokens = 0;
  std::int64_t most_handed = 0;
  for (const BlockId block : asking) {
    if (plan_->n_recalled(block) == 0) continue;
    if (is_mine(block)) {
      own_ = block;
      for (Rank rank = 0; rank < group_->size(); ++rank)
        if (n_candidates(block, rank) > 0) answering_.push_back(rank);
    }
    Asking& entry = asking_.emplace_back();
    entry.block = block;
    entry.parts = parts_held(*plan_, group_->rank(), block);
    entry.n_candidates = n_candidates(block, group_->rank());
    if (entry.n_candidates == 0 && !is_mine(block)) {
      asking_.pop_back();
      continue;
    }
    entry.candidates = backend_->allocate(static_cast<std::size_t>(entry.n_candidates) *
                                          (sizeof(std::int32_t) + sizeof(float)));
    if (!is_mine(block)) {
      entry.received = backend_->allocate(ask_bytes(block));
      const std::int64_t n_rows = plan_->n_asking_rows(block);
      const std::int64_t width = shape_.n_heads * shape_.head_dim;
      entry.q = {entry.received.data(), n_rows, width};
      entry.z = reinterpret_cast<const float*>(entry.received.data() +
                                               static_cast<std::size_t>(n_rows * width) *
                                                   size_of(backend_->activation_dtype()));
      entry.handed =
          backend_->allocate(2 * static_cast<std::size_t>(entry.n_candidates) * row_bytes_);
      most_handed = std::max(most_handed, entry.n_candidates);
    }
    most_tokens = std::max(most_tokens, n_tokens(entry.parts));
  }
  scores_ = backend_->allocate(static_cast<std::size_t>(most_tokens) * sizeof(float));
  const std::int64_t n_own = own_ < 0 ? 0 : plan_->n_recalled(own_);
  numbers_ = backend_->allocate(static_cast<std::size_t>(std::max(n_own, most_handed)) *
                                sizeof(std::int32_t));
  for (Buffer* buffer : {&arrived_k_, &arrived_v_})
    *buffer = backend_->allocate(is_alone() ? 0 : static_cast<std::size_t>(n_own) * row_bytes_);
  for (Buffer* buffer : {&recalled_k_, &recalled_v_})
    *buffer = backend_->allocate(static_cast<std::size_t>(n_own) * row_bytes_);
  backend_->synchronize();  // copies beside the operations need the memory now
}

void RecallExchange::ask(BlockId block, Rows q, const float* z) {
  STARATTN_CHECK(block == own_);
  STARATTN_CHECK(q.n_rows == plan_->n_asking_rows(block));
  for (Asking& asking : asking_) {
    if (asking.block != block) continue;
    asking.q = q;
    asking.z = z;
  }
  if (is_alone()) return;
  const auto q_bytes =
      static_cast<std::size_t>(q.n_rows * q.width) * size_of(backend_->activation_dtype());
  const auto z_bytes = static_cast<std::size_t>(q.n_rows * shape_.n_heads) * sizeof(float);
  for (const Rank rank : answering_) {
    if (rank != group_->rank()) {
      send({q.data, q_bytes}, rank);
      send({reinterpret_cast<const std::byte*>(z), z_bytes}, rank);
    }
    messages_.expect(rank, kCandidatesTag,
                     static_cast<std::size_t>(n_candidates(block, rank)) *
                         (sizeof(std::int32_t) + sizeof(float)));
  }
}

void RecallExchange::send(std::span<const std::byte> bytes, Rank to) {
  const Channel::Reader reader{to, bytes.size()};
  channel_->send({bytes.data(), false}, {&reader, 1});
  trace::count_bytes("recall", bytes.size());
}

void RecallExchange::await(Channel::Arrival arrival) {
  poll_until(
      "wait for recall", [this] { messages_.poll(); },
      [&] { return channel_->has_arrived(arrival); });
}

void RecallExchange::answer(const RowsOf& keys) {
  const trace::Range range("recall: score");
  for (Asking& asking : asking_) {
    if (asking.n_candidates == 0) continue;
    const Rank asker = plan_->owner(asking.block);
    if (!is_mine(asking.block)) {
      const std::span<std::byte> all{asking.received.data(), ask_bytes(asking.block)};
      const auto q_bytes = static_cast<std::size_t>(reinterpret_cast<const std::byte*>(asking.z) -
                                                    asking.received.data());
      const Channel::Arrival q = channel_->receive(asker, all.first(q_bytes));
      const Channel::Arrival z = channel_->receive(asker, all.subspan(q_bytes));
      await(q);
      await(z);
    }
    auto* scores = reinterpret_cast<float*>(scores_.data());
    std::int64_t n_before = 0;
    for (const RecallablePart& part : asking.parts) {
      const RawRows block = keys(part.block);
      const KvSegment segment{block.data + static_cast<std::size_t>(part.first_blk) * row_bytes_,
                              nullptr, part.n_tokens, false, has_f8_kv_};
      backend_->score_keys(asking.q, asking.z, segment, shape_, scores + n_before);
      n_before += part.n_tokens;
    }
    auto* numbers = reinterpret_cast<std::int32_t*>(asking.candidates.data());
    backend_->choose_best(scores, n_before, asking.n_candidates, numbers,
                          reinterpret_cast<float*>(numbers + asking.n_candidates));
    if (is_alone()) continue;
    const std::span<const std::byte> pieces[] = {bytes_of(
        asking.candidates.data(),
        static_cast<std::size_t>(asking.n_candidates) * (sizeof(std::int32_t) + sizeof(float)))};
    messages_.send(pieces, asker, kCandidatesTag);
    messages_.expect(asker, kWantedTag,
                     static_cast<std::size_t>(asking.n_candidates + 1) * sizeof(std::int32_t));
  }
}

void RecallExchange::choose() {
  if (own_ < 0 || is_alone()) return;
  const trace::Range range("recall: choose");
  std::vector<Candidates> ranks;
  for (const Rank rank : answering_) {
    Candidates& candidates = ranks.emplace_back();
    candidates.parts = parts_held(*plan_, rank, own_);
    const auto n = static_cast<std::size_t>(n_candidates(own_, rank));
    const auto* numbers =
        reinterpret_cast<const std::int32_t*>(messages_.receive(rank, kCandidatesTag).data());
    candidates.numbers = {numbers, n};
    candidates.scores = {reinterpret_cast<const float*>(numbers + n), n};
  }
  choice_ = choose_among(*plan_, ranks, plan_->n_recalled(own_));
  arrivals_.clear();
  std::int64_t first = 0;
  for (std::size_t r = 0; r < answering_.size(); ++r) {
    const std::vector<std::int32_t>& wanted = choice_.wanted[r];
    std::vector<std::int32_t> message(static_cast<std::size_t>(n_candidates(own_, answering_[r])) +
                                      1);
    message[0] = static_cast<std::int32_t>(wanted.size());
    std::copy(wanted.begin(), wanted.end(), message.begin() + 1);
    messages_.send_from_host(std::as_bytes(std::span(message)), answering_[r], kWantedTag);
    if (answering_[r] != group_->rank() && !wanted.empty()) {
      const std::size_t n_bytes = wanted.size() * row_bytes_;
      for (const Buffer* half : {&arrived_k_, &arrived_v_}) {
        const RawRows to = rows_of(*half, first, std::ssize(wanted));
        arrivals_.push_back(channel_->receive(answering_[r], {to.data, n_bytes}));
      }
    }
    first += std::ssize(wanted);
  }
}

void RecallExchange::gather(const Asking& asking, const RowsOf& rows, const std::int32_t* numbers,
                            RawRows to) {
  std::vector<RawRows> from;
  for (const RecallablePart& part : asking.parts) {
    const RawRows block = rows(part.block);
    from.push_back({block.data + static_cast<std::size_t>(part.first_blk) * row_bytes_,
                    part.n_tokens, row_bytes_});
  }
  backend_->gather_rows(from, numbers, to);
}

RawRows RecallExchange::rows_of(const Buffer& buffer, std::int64_t first, std::int64_t n) const {
  return {buffer.data() + static_cast<std::size_t>(first) * row_bytes_, n, row_bytes_};
}

std::int32_t* RecallExchange::upload(std::span<const std::int32_t> numbers, Buffer& to) {
  backend_->upload_later(std::as_bytes(numbers), to.data());
  return reinterpret_cast<std::int32_t*>(to.data());
}

void RecallExchange::hand_over(const RowsOf& keys, const RowsOf& values) {
  const trace::Range range("recall: hand over");
  for (Asking& asking : asking_) {
    if (asking.n_candidates == 0) continue;
    if (is_alone()) {
      const auto* numbers = reinterpret_cast<const std::int32_t*>(asking.candidates.data());
      gather(asking, keys, numbers, rows_of(recalled_k_, 0, asking.n_candidates));
      gather(asking, values, numbers, rows_of(recalled_v_, 0, asking.n_candidates));
      continue;
    }
    const Rank asker = plan_->owner(asking.block);
    const auto* message =
        reinterpret_cast<const std::int32_t*>(messages_.receive(asker, kWantedTag).data());
    const std::int64_t n = message[0];
    STARATTN_CHECK(n >= 0 && n <= asking.n_candidates);
    if (n == 0) continue;
    // The message's memory takes another one before the device has read it.
    const std::vector<std::int32_t> wanted(message + 1, message + 1 + n);
    const std::int32_t* numbers = upload(wanted, numbers_);
    if (is_mine(asking.block)) {  // in its place among what arrives
      std::int64_t first = 0;
      for (std::size_t r = 0; answering_[r] != group_->rank(); ++r)
        first += std::ssize(choice_.wanted[r]);
      gather(asking, keys, numbers, rows_of(arrived_k_, first, n));
      gather(asking, values, numbers, rows_of(arrived_v_, first, n));
      continue;
    }
    // The asking rank has what it was handed before: it could not have asked again otherwise.
    const RawRows handed_k = rows_of(asking.handed, 0, n);
    const RawRows handed_v = rows_of(asking.handed, n, n);
    gather(asking, keys, numbers, handed_k);
    gather(asking, values, numbers, handed_v);
    const auto n_bytes = static_cast<std::size_t>(n) * row_bytes_;
    send({handed_k.data, n_bytes}, asker);
    send({handed_v.data, n_bytes}, asker);
  }
}

KvSegment RecallExchange::recalled() {
  const std::int64_t n = own_ < 0 ? 0 : plan_->n_recalled(own_);
  if (!is_alone() && n > 0) {
    for (const Channel::Arrival arrival : arrivals_) await(arrival);
    const std::int32_t* order = upload(choice_.order, numbers_);
    const RawRows arrived_k = rows_of(arrived_k_, 0, n);
    const RawRows arrived_v = rows_of(arrived_v_, 0, n);
    backend_->gather_rows({&arrived_k, 1}, order, rows_of(recalled_k_, 0, n));
    backend_->gather_rows({&arrived_v, 1}, order, rows_of(recalled_v_, 0, n));
  }
  if (!is_alone()) messages_.forget();
  return {recalled_k_.data(), recalled_v_.data(), n, false, has_f8_kv_};
}

void RecallExchange::finish_wave() {
  if (is_alone()) return;
  poll_until(
      "wait for recall", [this] { messages_.poll(); }, [this] { return channel_->is_idle(); });
}

}  // namespace starattn
