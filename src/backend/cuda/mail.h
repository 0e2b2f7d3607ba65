// SPDX-License-Identifier: Apache-2.0
// Rows on their way between devices while operations are at work. Whichever operation makes rows
// that other devices wait for finds in the outbox where they go and stores them there itself, so
// that they are on their way before it ends; rows that none took are sent by the exchange. Rows
// that a product of few rows reads next may be left in the inbox, for it to make ready by itself:
// to take their norm, or to wait for other devices.
#pragma once

#include <utility>

#include "backend/cuda/device.h"
#include "own_tokens.h"
#include "peer_exchange.h"

namespace starattn::cuda {

class Outbox {
 public:
  // The next rows that are made at this place go there. exchange: the whole of it, if that is
  // known.
  void announce(const void* rows, const kernels::PeerSend& to,
                const kernels::PeerRows& exchange = {}) {
    rows_ = rows;
    to_ = to;
    exchange_ = exchange;
    is_taken_ = is_done_ = false;
  }
  // For an operation that makes all of these rows, once: where they go, or nowhere.
  kernels::PeerSend take(const void* rows) {
    if (!rows_ || rows != rows_ || is_taken_) return {};
    is_taken_ = true;
    return to_;
  }
  // Behind take(), for an operation that brings the exchange to its end as well, if it may.
  kernels::PeerRows take_exchange() {
    is_done_ = is_taken_ && exchange_.n_rows > 0;
    return is_done_ ? exchange_ : kernels::PeerRows();
  }
  enum class State { left, sent, exchanged };
  // What has become of the rows. Nothing is announced any more.
  State close() {
    rows_ = nullptr;
    const bool is_taken = std::exchange(is_taken_, false);
    return std::exchange(is_done_, false) ? State::exchanged : is_taken ? State::sent : State::left;
  }

 private:
  const void* rows_ = nullptr;
  kernels::PeerSend to_;
  kernels::PeerRows exchange_;
  bool is_taken_ = false, is_done_ = false;
};

class Inbox {
 public:
  explicit Inbox(Device& device) : device_(&device) {}

  // Rows for the product that is the next operation to read them.
  void leave(kernels::AwaitedRows rows) {
    STARATTN_CHECK(is_empty());
    constexpr std::size_t kBytes = kernels::kAwaitedCopies * kernels::kMostAwaited * 16;
    if (!copies_.data()) copies_ = device_->allocate(2 * kBytes);
    rows.copies = copies_.data() + (is_second_ ? kBytes : 0);
    is_second_ = !is_second_;
    rows_ = rows;
  }
  // For the product: how they come, or that they are there.
  kernels::AwaitedRows take(const void* rows) {
    return rows == rows_.rows ? std::exchange(rows_, {}) : kernels::AwaitedRows();
  }
  bool is_empty() const { return rows_.n_rows == 0; }

 private:
  Device* device_;
  kernels::AwaitedRows rows_;
  Buffer copies_;  // of this rows' and of those before, which may still be read
  bool is_second_ = false;
};

// Partials on their way from the operation that merges them, on every device, to the one that
// goes on with them.
class PartsMail {
 public:
  // The partials of which this is the first, when they are made.
  void announce(const float* first, const kernels::PartsSend& to) {
    first_ = first;
    to_ = to;
  }
  kernels::PartsSend take(const float* first) {
    if (!first_ || first != first_) return {};
    first_ = nullptr;
    return to_;
  }
  bool is_announced() const { return first_ != nullptr; }
  void leave(const float* first, const kernels::AwaitedParts& parts) {
    first_awaited_ = first;
    awaited_ = parts;
  }
  kernels::AwaitedParts take_awaited(const float* first) {
    if (first != first_awaited_) return {};
    return std::exchange(awaited_, {});
  }
  bool is_empty() const { return !first_ && awaited_.n_parts == 0; }

 private:
  const float* first_ = nullptr;
  const float* first_awaited_ = nullptr;
  kernels::PartsSend to_;
  kernels::AwaitedParts awaited_;
};

struct Mail {
  explicit Mail(Device& device) : in(device) {}

  Outbox out;
  Inbox in;
  PartsMail parts;

  bool is_empty() const { return in.is_empty() && parts.is_empty(); }  // but for the outbox
};

}  // namespace starattn::cuda
