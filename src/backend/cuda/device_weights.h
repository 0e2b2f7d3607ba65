// SPDX-License-Identifier: Apache-2.0
// The model's weights in GPU memory, as bf16, each tensor once.
#pragma once

#include <unordered_map>

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/tensors.h"

namespace starattn::cuda {

class DeviceWeights {
 public:
  explicit DeviceWeights(Device& device) : device_(&device) {}

  // read: gets the bytes as they went to the device, unless they are there already.
  void load(const WeightView& host, const Backend::BytesRead& read = {});
  const void* find(const WeightView& host);  // null for an absent weight; loads what is missing

 private:
  void copy(const WeightView& host, std::byte* to, const Backend::BytesRead& read);

  Device* device_;
  std::unordered_map<const std::byte*, Buffer> weights_;  // by host address
  Buffer staging_[2];                                     // pinned, filled in turns
};

}  // namespace starattn::cuda
