// SPDX-License-Identifier: Apache-2.0
// Weights that are not finite, NaN or infinite; see backend/backend.h.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/device_weights.h"
#include "backend/cuda/products.h"

namespace starattn::cuda {

std::int64_t first_not_finite(Device& device, DeviceWeights& weights, Products& products,
                              const WeightView& w, std::int64_t first_row, std::int64_t n_rows);

}  // namespace starattn::cuda
