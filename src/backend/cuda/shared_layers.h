// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "backend/cuda/device.h"
#include "backend/cuda/device_weights.h"
#include "backend/shared_layers.h"

namespace starattn::cuda {

// Takes memory for this rank's rows and for two layers, and tells the weights which rows to keep.
// Both arguments outlive the result. Throws Error(unfit) where there is no room.
std::unique_ptr<SharedLayers> share_layers(Device& device, DeviceWeights& weights,
                                           SharedModel model, int rank);

// Takes host memory for all matrices, pinned, and device memory for two layers. The same otherwise.
std::unique_ptr<FetchedLayers> stream_layers(Device& device, DeviceWeights& weights,
                                             const Backend::LayerMatrices& layers);

}  // namespace starattn::cuda
