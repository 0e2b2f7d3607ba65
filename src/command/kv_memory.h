// SPDX-License-Identifier: Apache-2.0
// --kv-memory: where a document's finished blocks live.
#pragma once

#include <string>

#include "backend/backend.h"
#include "mpi/communicator.h"
#include "star/cost.h"

namespace starattn {

// option: auto, device or host. on_device: what the fullest rank needs with its KV on the device,
// the weights among it, which are there already. Without a GPU it is all one memory: device.
// Collective over the group, the same on all its ranks.
KvMemory choose_kv_memory(const std::string& option, const MemoryNeed& on_device,
                          const Backend& backend, const Communicator& group);

}  // namespace starattn
