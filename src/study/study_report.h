// SPDX-License-Identifier: Apache-2.0
// Studies as pictures and tables: how time falls with ranks and grows with tokens.
#pragma once

#include <vector>

#include "report/chart.h"
#include "report/page.h"
#include "study/measurement.h"

namespace starattn {

// Medians of all studies together, which are of one model and machine: seconds over tokens, strong
// scaling where a context was measured on several numbers of ranks, weak scaling where as many
// tokens a rank were, each beside the ideal line.
std::vector<Chart> charts_of(const std::vector<Study>& studies);

// The charts, a table of all medians, and where the time of each largest context went.
std::vector<PageSection> study_sections(const std::vector<Study>& studies);

}  // namespace starattn
