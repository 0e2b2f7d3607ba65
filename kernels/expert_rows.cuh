// SPDX-License-Identifier: Apache-2.0
// What products of experts share: which row belongs to a place, and the gate.
#pragma once

#include <cuda_bf16.h>

#include "experts.h"

namespace starattn::kernels {

__device__ __forceinline__ float rounded(float x) {
  return __bfloat162float(__float2bfloat16_rn(x));
}

__device__ __forceinline__ float gated(float gate, float up) {
  gate = rounded(gate);
  return __fdividef(gate, 1.f + __expf(-gate)) * rounded(up);
}

// Row of x that belongs to a sorted place.
__device__ __forceinline__ std::int64_t row_of(const ExpertLinear& p, const std::int32_t* places,
                                               int sorted) {
  return p.places_per_row > 0 ? places[sorted] / p.places_per_row : sorted;
}

}  // namespace starattn::kernels
