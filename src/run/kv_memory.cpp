// SPDX-License-Identifier: Apache-2.0
#include "run/kv_memory.h"

#include <algorithm>

namespace starattn {

std::optional<std::uint64_t> free_device_bytes(const Backend& backend) {
  if (backend.is_host_memory()) return std::nullopt;
  return backend.free_bytes();
}

KvMemory choose_kv_memory(const std::string& option, const MemoryNeed& on_device,
                          std::optional<std::uint64_t> free_bytes, const Communicator& group) {
  const bool fits = !free_bytes || on_device.total() - on_device.weights <= *free_bytes;
  const std::vector<char> fit = group.allgather(static_cast<char>(fits));
  if (!free_bytes || option == "device") return KvMemory::device;
  if (option == "host") return KvMemory::host;
  return std::ranges::count(fit, 0) == 0 ? KvMemory::device : KvMemory::host;
}

}  // namespace starattn
