// SPDX-License-Identifier: Apache-2.0
// Memory that all ranks of a node read and write (POSIX shared memory). Not an MPI window: where
// /dev/shm is too small, Open MPI's waits for ever or dies later at the first touch.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <utility>

#include "mpi/communicator.h"

namespace starattn {

class NodeMemory {
 public:
  // Zeroes. Collective over ranks that share memory (Communicator::split_by_node). Nothing, on all
  // of them, where that would take more than half of what /dev/shm has left: a container's may be
  // small, and MPI lives there, too.
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

}  // namespace starattn
