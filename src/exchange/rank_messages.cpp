// SPDX-License-Identifier: Apache-2.0
#include "exchange/rank_messages.h"

#include <algorithm>
#include <cstring>

#include "exchange/poll_until.h"

namespace starattn {

RankMessages::RankMessages(const Communicator& group, Backend& backend, std::function<void()> also)
    : group_(&group), backend_(&backend), also_(std::move(also)) {}

Buffer RankMessages::take_staging(std::size_t n_bytes) {
  const auto fits = std::ranges::find_if(
      spare_, [&](const Buffer& buffer) { return buffer.n_bytes() >= n_bytes; });
  if (fits == spare_.end()) return backend_->allocate_pinned(n_bytes);
  Buffer staging = std::move(*fits);
  spare_.erase(fits);
  return staging;
}

void RankMessages::send(std::span<const std::span<const std::byte>> on_device, Rank to, int tag) {
  Outgoing& message = outgoing_.emplace_back();
  message.to = to;
  message.tag = tag;
  for (const auto& bytes : on_device) message.n_bytes += bytes.size();
  message.staging = take_staging(message.n_bytes);
  std::byte* at = message.staging.data();
  for (const auto& bytes : on_device) {
    backend_->copy_after_operations(CopyDirection::to_host, bytes, at);
    at += bytes.size();
  }
  trace::count_bytes("recall", message.n_bytes);
}

void RankMessages::send_from_host(std::span<const std::byte> bytes, Rank to, int tag) {
  Outgoing& message = outgoing_.emplace_back();
  message.to = to;
  message.tag = tag;
  message.n_bytes = bytes.size();
  message.staging = take_staging(bytes.size());
  if (!bytes.empty()) std::memcpy(message.staging.data(), bytes.data(), bytes.size());
  trace::count_bytes("recall", message.n_bytes);
}

void RankMessages::expect(Rank from, int tag, std::size_t n_bytes) {
  const auto [at, is_new] = incoming_.try_emplace({from, tag});
  STARATTN_CHECK(is_new);
  Incoming& message = at->second;
  message.staging = take_staging(n_bytes);
  message.n_bytes = n_bytes;
  group_->irecv({message.staging.data(), n_bytes}, from, tag, message.requests);
}

std::span<const std::byte> RankMessages::receive(Rank from, int tag) {
  Incoming& message = incoming_.at({from, tag});
  poll_until(
      "wait for recall", [this] { poll(); }, [&] { return message.requests.test(); });
  return {message.staging.data(), message.n_bytes};
}

void RankMessages::poll() {
  // Copies to the host finish in order, and nothing says of one alone that it has: messages from
  // the device leave together.
  const bool has_left_device = backend_->copies_done(CopyDirection::to_host);
  for (Outgoing& message : outgoing_) {
    if (message.is_off) {
      message.requests.test();
    } else if (has_left_device) {
      group_->isend({message.staging.data(), message.n_bytes}, message.to, message.tag,
                    message.requests);
      message.is_off = true;
    }
  }
  if (also_) also_();
}

void RankMessages::forget() {
  poll_until(
      "wait for recall", [this] { poll(); },
      [&] {
        return std::ranges::all_of(
            outgoing_, [](Outgoing& message) { return message.is_off && message.requests.test(); });
      });
  for (Outgoing& message : outgoing_) spare_.push_back(std::move(message.staging));
  for (auto& [from, message] : incoming_) {
    STARATTN_CHECK(message.requests.test());
    spare_.push_back(std::move(message.staging));
  }
  outgoing_.clear();
  incoming_.clear();
}

}  // namespace starattn
