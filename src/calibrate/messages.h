// SPDX-License-Identifier: Apache-2.0
// The part of bench --calibrate that times what the ranks of this run send each other.
#pragma once

#include "calibrate/inputs.h"
#include "star/machine.h"

namespace starattn {

// Seconds in which the first rank sends so many bytes to all others at once.
ByteTime time_messages(const Communicator& world, Backend& backend);

// Seconds of one layer of phase 2: rows of Q to all ranks, and partials back.
ByteTime time_query_exchange(const Communicator& world, const CalibrationInputs& inputs);

}  // namespace starattn
