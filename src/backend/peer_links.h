// SPDX-License-Identifier: Apache-2.0
// Devices of a node that store straight into each other's memory, without the host. Each has a
// mailbox that the others write; a message and its arrival are operations in the devices' order.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/tensors.h"

namespace starattn {

// Rows of bytes on the device; a row is a whole number of 4-byte words.
struct Strip {
  std::byte* data = nullptr;
  std::int64_t n_rows = 0;
  std::size_t row_bytes = 0;
  std::size_t stride_bytes = 0;  // from one row to the next

  std::size_t n_bytes() const { return static_cast<std::size_t>(n_rows) * row_bytes; }
};

// What the owner of a mailbox tells those who write to it.
struct PeerAddress {
  std::array<std::byte, 64> memory{};  // cudaIpcMemHandle_t
  std::array<char, 32> device{};       // its PCI bus address
};

class PeerLinks {
 public:
  // Of one exchange: bytes from one rank to another, and strips over all ranks, of which one to
  // several ranks counts for each of them. Three strips to each of 16 ranks and back are the most.
  static constexpr std::size_t kMostBytes = std::size_t{2} << 20;
  static constexpr std::size_t kMostStrips = 96;

  virtual ~PeerLinks() = default;

  virtual PeerAddress address() const = 0;
  // all[rank]; before the first exchange. Throws Error(unfit) saying what keeps these two devices
  // apart.
  virtual void connect(std::span<const PeerAddress> all, int me) = 0;
  // to[rank] goes to that rank, from[rank] comes from it, strip by strip: the sizes that one side
  // gives are those the other expects. What goes to this rank itself is copied. Every rank takes
  // part in every exchange, in the same order.
  virtual void exchange(std::span<const std::vector<Strip>> to,
                        std::span<const std::vector<Strip>> from) = 0;
  // Activations whose columns the ranks share out, columns[rank], one row after the other: all
  // [n_rows, width] gets every rank's columns side by side. mine takes kMostBytes at most. With a
  // norm, normed gets the RMS norm of the rows, with the bits of Backend::rms_norm. reader: of
  // normed, if there is a norm, else of all; a product brings in nothing else.
  virtual void exchange_rows(Rows mine, std::span<const Share> columns, Rows all,
                             const RowNorm* norm = nullptr, Rows normed = {},
                             Reader reader = Reader::any) = 0;
  // The next exchange is exchange_rows() of these, without a norm if `all` is there. Whichever
  // operation makes `mine` before then may send it by itself, and bring in all.
  virtual void announce(Rows mine, std::span<const Share> columns, Rows all = {}) = 0;
  // The next exchange brings partials: of every rank n_parts[rank], [n_rows, all heads], of which
  // heads[rank] go to that rank. mine: this rank's, which one Backend::attend_blocks() makes before
  // then and sends by itself.
  virtual void announce_parts(std::span<const Partial> mine, std::span<const Share> heads) = 0;
  // Then the ranks do this. all: where the partials of all ranks would lie, in rank order, of this
  // rank's heads (own); Backend::attend_own() of these is what comes next, and waits for them by
  // itself.
  virtual void leave_parts(std::span<const Partial> all, std::span<const std::int64_t> n_parts,
                           const AttentionShape& own) = 0;
  // Whether so many rows of partials can go so.
  static bool takes_parts(std::int64_t n_rows, std::span<const Share> heads,
                          std::span<const std::int64_t> n_parts, std::int64_t head_dim) {
    constexpr std::int64_t kMostParts = 8;  // that one operation merges
    std::int64_t n_all = 0, most_heads = 0, most_parts = 0;
    for (std::size_t rank = 0; rank < heads.size(); ++rank) {
      if (heads[rank].count == 0 || n_parts[rank] == 0) return false;
      n_all += n_parts[rank];
      most_heads = std::max(most_heads, heads[rank].count);
      most_parts = std::max(most_parts, n_parts[rank]);
    }
    const std::int64_t value_bytes = (head_dim + 2) * static_cast<std::int64_t>(sizeof(float));
    return n_rows > 0 && n_all <= kMostParts &&
           most_parts * n_rows * most_heads * value_bytes <= static_cast<std::int64_t>(kMostBytes);
  }
  static bool takes_rows(std::span<const Share> columns, bool behind_norm) {
    constexpr std::int64_t kAtOnce = 8, kLeastNormed = 264, kMostNormed = 20'480;  // columns
    const std::int64_t n = columns.back().end();
    return n >= (behind_norm ? kLeastNormed : kAtOnce) && (!behind_norm || n <= kMostNormed) &&
           std::ranges::all_of(columns, [](const Share& share) {
             return share.first % kAtOnce == 0 && share.count % kAtOnce == 0;
           });
  }
  // A wait ends after this long, and with it all later ones: what came is worth nothing then.
  virtual void set_wait_limit(double seconds) = 0;
  // Whether a wait ended so since the last question. The device has finished.
  virtual bool has_given_up() = 0;
};

}  // namespace starattn
