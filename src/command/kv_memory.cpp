// SPDX-License-Identifier: Apache-2.0
#include "command/kv_memory.h"

#include <algorithm>

namespace starattn {

KvMemory choose_kv_memory(const std::string& option, const MemoryNeed& on_device,
                          const Backend& backend, const Communicator& group) {
  const bool fits =
      backend.is_host_memory() || on_device.total() - on_device.weights <= backend.free_bytes();
  const std::vector<char> fit = group.allgather(static_cast<char>(fits));
  if (backend.is_host_memory() || option == "device") return KvMemory::device;
  if (option == "host") return KvMemory::host;
  return std::ranges::count(fit, 0) == 0 ? KvMemory::device : KvMemory::host;
}

}  // namespace starattn
