// SPDX-License-Identifier: Apache-2.0
// Host memory that the GPU's copy engines reach, for the K and V of whole documents.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace starattn::cuda {

// Zeroes. cudaHostAlloc touches its pages on one thread, which took almost as long as phase 1
// (docs/performance.md); here all cores of this process do, in large pages, before the memory is
// pinned. Error(unfit) where the host has no room. Freeing it waits for the device.
Buffer pinned_memory(std::size_t n_bytes);

// For the K and V of one document after another. What one gives back waits for the next, because
// preparing it takes longer than filling it over the bus (docs/performance.md). Buffers must not
// outlive the pool.
class PinnedPool {
 public:
  PinnedPool() = default;
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;

  // Where nothing of this size waits, all that waits is given up, so that no more is taken than
  // without the pool. The contents are whatever they were. Throws as pinned_memory.
  Buffer allocate(std::size_t n_bytes);

 private:
  static constexpr std::size_t kLeastBytes = std::size_t{64} << 20;  // less is quick to prepare

  struct Lent {
    PinnedPool* pool;
    Buffer memory;
  };
  static void take_back(void* memory, void* lent);

  std::vector<std::unique_ptr<Lent>> waiting_;
};

// Pins memory that somebody else owns, for as long as the result lives.
Buffer pin(std::span<std::byte> memory);

}  // namespace starattn::cuda
