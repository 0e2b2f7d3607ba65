// SPDX-License-Identifier: Apache-2.0
// doctor's trial of a checkpoint directory: what a run does there, small.
#pragma once

#include <string>

#include "mpi/communicator.h"

namespace starattn {

// Collective. The first rank saves a document of 64 MiB below `directory`, every rank reads it and
// compares, and it is removed again. Returns the finding for people, on every rank. Throws as
// checkpoints do; bad_data where a rank does not see the document or reads other values.
std::string probe_checkpoints(const Communicator& world, const std::string& directory);

}  // namespace starattn
