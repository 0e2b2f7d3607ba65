// SPDX-License-Identifier: Apache-2.0
// expert_linear() for FP8 matrices, of checked shape.
#pragma once

#include "experts.h"

namespace starattn::kernels {

void expert_linear_f8(const ExpertLinear& product, const SortedPlaces& sorted,
                      Stream stream);  // throws BadShape

}  // namespace starattn::kernels
