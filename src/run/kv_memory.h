// SPDX-License-Identifier: Apache-2.0
// --kv-memory: where a document's finished blocks live.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backend/backend.h"
#include "mpi/communicator.h"
#include "star/cost.h"

namespace starattn {

// Free bytes of a device with memory of its own.
std::optional<std::uint64_t> free_device_bytes(const Backend& backend);

// option: auto, device or host. on_device: what the fullest rank needs with its KV on the device,
// the weights among it, which are there already. free_bytes: of this rank's device; without one of
// its own it is all one memory: device. Collective over the group, the same on all its ranks.
KvMemory choose_kv_memory(const std::string& option, const MemoryNeed& on_device,
                          std::optional<std::uint64_t> free_bytes, const Communicator& group);

}  // namespace starattn
