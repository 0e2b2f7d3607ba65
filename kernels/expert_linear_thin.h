// SPDX-License-Identifier: Apache-2.0
// expert_linear() of few rows a tile, of checked shape.
#pragma once

#include "experts.h"

namespace starattn::kernels {

void expert_linear_thin(const ExpertLinear& product, const SortedPlaces& sorted,
                        Stream stream);  // throws BadShape

}  // namespace starattn::kernels
