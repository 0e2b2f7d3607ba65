// SPDX-License-Identifier: Apache-2.0
// A few bytes between host and device in the stream's order, by a kernel: it may start while the
// one before is at work, which a copy engine's copy keeps from happening on both of its sides.
#pragma once

#include <cstddef>

#include "launch.h"

namespace starattn::kernels {

inline constexpr std::size_t kMostSmallBytes = 3072;  // as the parameter of a kernel

// host: any memory, read before this returns. device: 4-byte aligned, as pinned. n_bytes: at most
// kMostSmallBytes.
void put_bytes(const void* host, std::size_t n_bytes, void* device, Stream stream);
// pinned: host memory that the device writes.
void fetch_bytes(const void* device, std::size_t n_bytes, void* pinned, Stream stream);

}  // namespace starattn::kernels
