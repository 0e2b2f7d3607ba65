// SPDX-License-Identifier: Apache-2.0
// How the clocks of ranks differ.
#pragma once

#include "mpi/communicator.h"

namespace starattn {

// Seconds that rank 0's clock shows beyond this rank's: of several messages there and back the
// fastest says it, to about half the time that it took. now: this rank's clock. Collective.
double clock_offset(const Communicator& comm, double (*now)());

}  // namespace starattn
