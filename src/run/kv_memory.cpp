// SPDX-License-Identifier: Apache-2.0
#include "run/kv_memory.h"

namespace starattn {

KvMemory choose_kv_memory(const std::string& option, std::optional<bool> fits_on_device,
                          const Communicator& group) {
  const bool fits_everywhere = !group.any(!fits_on_device.value_or(true));
  if (!fits_on_device || option == "device") return KvMemory::device;
  return option == "auto" && fits_everywhere ? KvMemory::device : KvMemory::host;
}

}  // namespace starattn
