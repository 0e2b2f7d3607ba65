// SPDX-License-Identifier: Apache-2.0
// thin_linear() for outputs whose matrices are FP8, at most kMostThinRows rows of checked shape.
#pragma once

#include "thin_linear.h"

namespace starattn::kernels {

void thin_linear_f8(const ThinLinear& product, Stream stream);  // throws BadShape

}  // namespace starattn::kernels
