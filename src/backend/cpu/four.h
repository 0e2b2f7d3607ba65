// SPDX-License-Identifier: Apache-2.0
// Four floats that are computed together, as every processor can: for loops outside the kernels,
// in which products and sums round one by one.
#pragma once

#include <cstring>

namespace starattn::cpu {

using Four = float __attribute__((vector_size(16)));

inline Four load_four(const float* from) {
  Four v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
inline void store_four(float* to, Four v) {
  std::memcpy(to, &v, sizeof(v));
}

}  // namespace starattn::cpu
