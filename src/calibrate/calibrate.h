// SPDX-License-Identifier: Apache-2.0
// bench --calibrate: the machine file from which `plan` makes times (star/machine.h).
#pragma once

#include "base/error.h"
#include "run/loaded_model.h"

namespace starattn {

// Times each kind of operation by itself, on all ranks at once, and messages between them, and
// writes the file from the first rank. About a minute on a GPU, several on a CPU. Collective.
// Throws AgreedError(cannot_create | io | unfit).
Exit calibrate_to(const std::string& path, const DeviceOptions& options, const Ranks& ranks);

}  // namespace starattn
