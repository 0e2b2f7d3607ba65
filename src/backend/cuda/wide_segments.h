// SPDX-License-Identifier: Apache-2.0
// Keys and values for operations that take bf16 alone.
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/tensors.h"

namespace starattn::cuda {

// The segments, with those that are FP8 in bf16, in memory that lives as long as this.
class WideSegments {
 public:
  WideSegments(Device& device, std::span<const KvSegment> segments, const AttentionShape& shape,
               bool keys_only = false);
  std::span<const KvSegment> segments() const { return segments_; }

 private:
  std::vector<KvSegment> segments_;
  std::vector<Buffer> memory_;
};

}  // namespace starattn::cuda
