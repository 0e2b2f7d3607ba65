// SPDX-License-Identifier: Apache-2.0
// Memory that all ranks of a node read and write (POSIX shared memory). Not an MPI window: where
// /dev/shm is too small, Open MPI's waits for ever or dies later at the first touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "mpi/communicator.h"

namespace starattn {

class NodeMemory {
 public:
  // Bytes that create() would give, the same on all ranks: half of what /dev/shm has left, for a
  // container's may be small, and MPI lives there, too. Collective over ranks that share memory
  // (Communicator::split_by_node), as create().
  static std::size_t room(const Communicator& node);
  // Zeroes. Nothing, on all ranks, where there is no such room.
  static std::optional<NodeMemory> create(const Communicator& node, std::size_t n_bytes);
  ~NodeMemory();
  NodeMemory(NodeMemory&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  NodeMemory& operator=(NodeMemory&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::span<std::byte> bytes() const { return bytes_; }  // aligned to a page

 private:
  explicit NodeMemory(std::span<std::byte> bytes) : bytes_(bytes) {}
  std::span<std::byte> bytes_;
};

// Numbers that only grow, each written by one rank and read by all that map the memory: whoever
// reads a number may read what was written before it was set.
class SharedCounters {
 public:
  struct alignas(64) Counter {  // a cache line each
    std::uint64_t value = 0;
  };

  explicit SharedCounters(Counter* counters) : counters_(counters) {}
  std::uint64_t get(std::size_t i) const;
  void set(std::size_t i, std::uint64_t value);
  // Returns when the counter has come that far. Made for microseconds on a core of one's own.
  void await(std::size_t i, std::uint64_t value) const;

 private:
  Counter* counters_;
};

}  // namespace starattn
