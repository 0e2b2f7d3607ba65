// SPDX-License-Identifier: Apache-2.0
// Devices that store into each other's memory: one launch sends, waits and unpacks. A message is a
// row of lines, each two words and two flags (the "LL" protocol of NCCL): a line is there when both
// flags are this exchange's, so nothing else has to be ordered.
#pragma once

#include <cstddef>
#include <cstdint>

#include "launch.h"

namespace starattn::kernels {

inline constexpr int kMostPeers = 15;
inline constexpr int kMostPeerStrips = 96;

// Words of 4 bytes in rows.
struct PeerStrip {
  std::uint32_t* data = nullptr;  // on this device
  std::uint32_t n_words = 0;      // in all
  std::uint32_t row_words = 1;
  std::uint32_t stride_words = 1;  // from one row to the next
  std::uint32_t first_line = 0;    // of the message
  std::uint32_t peer = 0;          // where it goes or comes from: its place in `there` and `here`
};

// That a strip takes of a message.
inline std::uint32_t n_lines_of(std::uint32_t n_words) {
  return (n_words + 1) / 2;
}

struct PeerExchangeBase {
  int n_peers = 0;               // other devices
  void* there[kMostPeers] = {};  // where this device's messages lie in theirs
  void* here[kMostPeers] = {};   // where theirs lie in this one
  std::uint32_t flag = 0;        // of this exchange; not that of the one before in this memory
  int n_sends = 0, n_receives = 0, n_copies = 0;
  std::uint64_t limit_ns = 0;        // a wait ends after this
  std::uint32_t* gave_up = nullptr;  // then becomes 1; once it is, no wait lasts long
};

struct PeerExchange : PeerExchangeBase {
  // Sends, then receives, then pairs of copies on this device: from, to.
  PeerStrip strips[kMostPeerStrips];
};

// Lines are 16 bytes. The first of each message is a greeting, so that all wait for each other even
// where there is nothing to say; strips begin behind it. Throws BadShape.
void exchange_with_peers(const PeerExchange& exchange, Stream stream);

}  // namespace starattn::kernels
