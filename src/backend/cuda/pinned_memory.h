// SPDX-License-Identifier: Apache-2.0
// Host memory that the GPU's copy engines reach, for the K and V of whole documents.
#pragma once

#include <cstddef>
#include <span>

#include "backend/backend.h"

namespace starattn::cuda {

// Zeroes. cudaHostAlloc touches its pages on one thread, which took almost as long as phase 1
// (docs/performance.md); here all cores of this process do, in large pages, before the memory is
// pinned. Error(unfit) where the host has no room. Freeing it waits for the device.
Buffer pinned_memory(std::size_t n_bytes);

// Pins memory that somebody else owns, for as long as the result lives.
Buffer pin(std::span<std::byte> memory);

}  // namespace starattn::cuda
