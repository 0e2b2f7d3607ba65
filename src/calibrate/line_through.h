// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "star/machine.h"

namespace starattn {

// The line through two measured points.
inline ByteTime line_through(double few_bytes, double few_seconds, double many_bytes,
                             double many_seconds) {
  const double slope = std::max((many_seconds - few_seconds) / (many_bytes - few_bytes), 1e-15);
  return {std::max(0.0, few_seconds - slope * few_bytes), 1 / slope};
}

}  // namespace starattn
