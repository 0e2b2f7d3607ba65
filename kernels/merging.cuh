// SPDX-License-Identifier: Apache-2.0
// Two partials of the same row become one (the online softmax, arXiv 1805.02867). Which product is
// rounded first is written out, so that every kernel this is compiled into gives the same bits.
#pragma once

#include <cuda_runtime.h>

namespace starattn::kernels {

// What a partial with maximum m counts for among partials whose largest is `top`. Of empty ones
// m = top = -inf, but -inf - -inf must not appear.
__device__ __forceinline__ float merge_weight(float m, float top) {
  return m == -INFINITY ? 0.f : expf(m - top);
}

__device__ __forceinline__ float merged(float a, float weight_a, float b, float weight_b) {
  return __fmaf_rn(a, weight_a, __fmul_rn(b, weight_b));
}

}  // namespace starattn::kernels
