// SPDX-License-Identifier: Apache-2.0
// Rows that other devices wait for. Whichever operation makes them finds here where they go and
// stores them there itself, so that they are on their way before it ends; rows that none took are
// sent by the exchange.
#pragma once

#include <utility>

#include "peer_exchange.h"

namespace starattn::cuda {

class Outbox {
 public:
  // The next rows that are made at this place go there.
  void announce(const void* rows, const kernels::PeerSend& to) {
    rows_ = rows;
    to_ = to;
    is_taken_ = false;
  }
  // For an operation that makes all of these rows, once: where they go, or nowhere.
  kernels::PeerSend take(const void* rows) {
    if (!rows_ || rows != rows_ || is_taken_) return {};
    is_taken_ = true;
    return to_;
  }
  // Whether they were taken. Nothing is announced any more.
  bool close() {
    rows_ = nullptr;
    return std::exchange(is_taken_, false);
  }

 private:
  const void* rows_ = nullptr;
  kernels::PeerSend to_;
  bool is_taken_ = false;
};

}  // namespace starattn::cuda
