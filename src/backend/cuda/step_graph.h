// SPDX-License-Identifier: Apache-2.0
// Repeated operations as a CUDA graph: a kernel of a graph follows the one before it sooner than a
// kernel that is launched by itself. Each time the operations are recorded anew, since their
// arguments differ, and the executable graph of the time before takes these over where it can, so
// that no other has to be made.
#pragma once

#include <memory>

#include "backend/cuda/device.h"
#include "backend/repeated.h"

namespace starattn::cuda {

// The device must outlive it.
std::unique_ptr<Repeated> make_step_graph(Device& device);

}  // namespace starattn::cuda
