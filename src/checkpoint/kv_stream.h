// SPDX-License-Identifier: Apache-2.0
// K and V going to a file and coming from it, one layer's K or V at a time, in the order k, v of
// layer 0, k, v of layer 1, ... so that memory on a device can pass through one staging buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "checkpoint/document_info.h"

namespace starattn {

// [n_tokens of the block, n_kv_heads, head_dim] in the KV dtype, row-major; good until the next
// call.
using KvSource = std::function<std::span<const std::byte>(std::int64_t layer, KvPart part)>;

struct KvSink {
  // Where that part belongs, of exactly the same size.
  std::function<std::span<std::byte>(std::int64_t layer, KvPart part)> place;
  // Called when the memory last given by place holds its values; may be empty.
  std::function<void(std::int64_t layer, KvPart part)> filled;
};

}  // namespace starattn
