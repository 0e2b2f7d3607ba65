// SPDX-License-Identifier: Apache-2.0
// Memory that all ranks of a node read and write (an MPI-3 shared window).
#pragma once

#include <mpi.h>

#include <cstddef>
#include <optional>
#include <span>
#include <utility>

#include "mpi/communicator.h"

namespace starattn {

class NodeMemory {
 public:
  // Collective over ranks that share memory (Communicator::split_by_node). Nothing, on all of them,
  // where the node has no room for it: /dev/shm of a container may be small.
  static std::optional<NodeMemory> create(const Communicator& node, std::size_t n_bytes);
  ~NodeMemory();  // collective
  NodeMemory(NodeMemory&& other) noexcept
      : window_(std::exchange(other.window_, MPI_WIN_NULL)), bytes_(other.bytes_) {}
  NodeMemory& operator=(NodeMemory&& other) noexcept {
    std::swap(window_, other.window_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::span<std::byte> bytes() const { return bytes_; }  // aligned to a page

 private:
  NodeMemory(MPI_Win window, std::span<std::byte> bytes) : window_(window), bytes_(bytes) {}
  MPI_Win window_;
  std::span<std::byte> bytes_;
};

}  // namespace starattn
