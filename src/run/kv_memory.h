// SPDX-License-Identifier: Apache-2.0
// --kv-memory: where a document's finished blocks live.
#pragma once

#include <optional>
#include <string>

#include "mpi/communicator.h"
#include "star/kv.h"

namespace starattn {

// option: auto, device or host. fits_on_device: whether this rank's device, if it has memory of its
// own, has room for the document's blocks; without one it is all one memory: device. Collective
// over the group, the same on all its ranks.
KvMemory choose_kv_memory(const std::string& option, std::optional<bool> fits_on_device,
                          const Communicator& group);

}  // namespace starattn
