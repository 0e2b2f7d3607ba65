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

// Waiting for one exchange.
struct PeerWait {
  std::uint32_t flag = 0;            // of this exchange; not that of the one before in this memory
  std::uint64_t limit_ns = 0;        // a wait ends after this
  std::uint32_t* gave_up = nullptr;  // then becomes 1; once it is, no wait lasts long
};

// One exchange, whatever it brings.
struct PeerMeeting : PeerWait {
  int n_peers = 0;               // other devices
  void* there[kMostPeers] = {};  // where this device's messages lie in theirs
  void* here[kMostPeers] = {};   // where theirs lie in this one
};

struct PeerExchangeBase : PeerMeeting {
  int n_sends = 0, n_receives = 0, n_copies = 0;
};

struct PeerExchange : PeerExchangeBase {
  // Sends, then receives, then pairs of copies on this device: from, to.
  PeerStrip strips[kMostPeerStrips];
};

// Lines are 16 bytes. The first of each message is a greeting, so that all wait for each other even
// where there is nothing to say; strips begin behind it. Throws BadShape.
void exchange_with_peers(const PeerExchange& exchange, Stream stream);

// Where a kernel that makes bf16 rows stores them, too, so that they are on their way before it
// ends: lines of the message that exchange_rows() of the same meeting waits for, or a kernel that
// has AwaitedRows, for the latter to this device itself as well. The number of columns is a
// multiple of eight.
struct PeerSend {
  int n_peers = 0;  // 0: nowhere
  void* there[kMostPeers + 1] = {};
  std::uint32_t flag = 0;
  std::int64_t n_columns = 0;  // of a row
  std::int64_t first_row = 0;  // of the message, where the kernel's rows begin
};

// Some columns of rows, in vectors of eight.
struct PeerColumns {
  int first = 0, count = 0;
  int end() const { return first + count; }
};

// Few rows of bf16 that a kernel makes ready by itself before it reads them, each of its blocks all
// of them; behind a norm if there is a weight, with the bits of rms_norm() (elementwise.h). They
// come from memory, or from the devices of an exchange, in place of exchange_rows(): then this
// device's own are among them, which the kernel that made them has sent like the others', and
// nobody waits for the end of that kernel. Every device has columns: that all are there says that
// each has read what it received in the exchange before.
struct AwaitedRows : PeerWait {
  const void* from = nullptr;             // [n_rows, n_vectors], where there is no exchange
  int n_ranks = 0;                        // else: of its devices
  const void* here[kMostPeers + 1] = {};  // their messages
  PeerColumns columns[kMostPeers + 1];    // of each
  std::int64_t n_rows = 0;                // 0: there is nothing to make ready
  int n_vectors = 0;                      // of a row
  const void* weight = nullptr;           // [n_vectors] or absent
  float eps = 0;
  void* rows = nullptr;    // [n_rows, n_vectors]: where they lie once the kernel has ended
  void* copies = nullptr;  // [kAwaitedCopies][n_rows, n_vectors]: for its blocks
};
inline constexpr int kAwaitedCopies = 15;  // beside `rows`
inline constexpr std::int64_t kMostAwaitedRows = 8;
inline constexpr std::int64_t kMostAwaited = 2048;        // vectors in all
inline constexpr std::int64_t kMostAwaitedNormed = 1024;  // of a row behind a norm
// Whether n_rows of n_vectors can be awaited so.
bool can_await_rows(std::int64_t n_rows, std::int64_t n_vectors, bool behind_norm);
// That awaited rows are n_rows of n_columns. Throws BadShape.
void check_awaited(const AwaitedRows& awaited, std::int64_t n_rows, std::int64_t n_columns);

// Where a kernel that merges partials stores them in place of its own memory: a device gets the
// heads that it goes on with, this one its own. A message has value row after value row, [n_parts,
// n_rows, the device's heads], each its o in pairs, then m and l.
struct PartsSend {
  int n_ranks = 0;  // 0: nowhere
  void* there[kMostPeers + 1] = {};
  int first_head[kMostPeers + 2] = {};  // of each device, ascending; then the number of heads
  std::uint32_t flag = 0;
};
constexpr std::int64_t lines_of_value_row(int head_dim) {
  return head_dim / 2 + 1;
}

inline constexpr int kMostNormedVectors = 2560;

// Rows of bf16 whose columns the devices have shared out, side by side, and their RMS norm where
// there is a weight.
struct PeerRows : PeerMeeting {
  PeerColumns of_peers[kMostPeers];  // in the order of `there`
  PeerColumns own;
  const void* mine = nullptr;    // [n_rows, own]
  void* all = nullptr;           // [n_rows, n_vectors]
  bool is_sent = false;          // whoever made `mine` has stored it in the others' memory
  const void* weight = nullptr;  // [n_vectors] or absent
  void* normed = nullptr;        // [n_rows, n_vectors]
  std::int64_t n_rows = 0;
  int n_vectors = 0;  // of a row; behind a norm 33 to kMostNormedVectors
  float eps = 0;
};

// One launch; the norm has the bits of rms_norm() (elementwise.h). Throws BadShape.
void exchange_rows(const PeerRows& rows, Stream stream);
// That the columns of all are those of a row, each once. Throws BadShape.
void check_columns(const PeerRows& rows);

}  // namespace starattn::kernels
