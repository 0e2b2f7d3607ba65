// SPDX-License-Identifier: Apache-2.0
// The model's weights in GPU memory, as bf16, each tensor once. Rows of a tensor that is there are
// found in it.
#pragma once

#include <map>

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
  struct Loaded {
    WeightView host;
    Buffer bf16;
  };
  const Loaded* holder_of(const WeightView& host) const;  // null: not there

  std::map<const std::byte*, Loaded> weights_;  // by host address
  Buffer staging_[2];                                     // pinned, filled in turns
};

}  // namespace starattn::cuda
