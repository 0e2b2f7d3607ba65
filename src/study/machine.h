// SPDX-License-Identifier: Apache-2.0
// The machine that a study ran on: what a reader of its figures asks for, and how fast its products
// are meanwhile.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/json.h"
#include "run/loaded_model.h"

namespace starattn {

// Date, command, versions, device, and of each rank host, processor, cores, clock and threads.
// Collective; complete on the first rank.
Json describe_machine(const Ranks& ranks, const Backend& backend);

// Operations a second of large products on all ranks at once, the best of a few: sgemm on the CPU,
// bf16 on a GPU. Collective.
double product_rate(const Ranks& ranks, Backend& backend);

// How far rates that should be equal lie apart: 1 - least / greatest. 0 for a single one.
double swing_of(const std::vector<double>& rates);

// From here on something else is at work on the machine, or its clocks move.
inline constexpr double kBusySwing = 0.05;

}  // namespace starattn
