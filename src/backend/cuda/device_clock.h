// SPDX-License-Identifier: Apache-2.0
// When the device came by: events in its streams, which are read later, without waiting for them.
#pragma once

#include <memory>

#include "backend/cuda/device.h"
#include "trace/span.h"

namespace starattn::cuda {

// Waits for the device once, here, to set the clocks of both beside each other.
std::unique_ptr<trace::DeviceClock> make_device_clock(Device& device);

}  // namespace starattn::cuda
