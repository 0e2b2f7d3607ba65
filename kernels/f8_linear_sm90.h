// SPDX-License-Identifier: Apache-2.0
// The FP8 product on Hopper; see f8_linear.h. Only where takes_f8_linear().
#pragma once

#include "f8_linear.h"

namespace starattn::kernels {

void f8_linear_sm90(const F8Linear& product, Stream stream);

}  // namespace starattn::kernels
