// SPDX-License-Identifier: Apache-2.0
// Whether ranks that share out weights can exchange their columns here, and how fast.
#pragma once

#include <string>

#include "backend/backend.h"
#include "mpi/communicator.h"

namespace starattn {

// Columns of one row and of many go from every rank of the node to every other, through the host
// and, where devices reach each other, from device to device; what arrives is compared with what
// was sent. The finding in words: times, or what prevents it. Collective. Throws
// AgreedError(unfit) where a wrong value arrives.
std::string probe_exchanges(const Communicator& node, Backend& backend);

}  // namespace starattn
