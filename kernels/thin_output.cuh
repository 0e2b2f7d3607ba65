// SPDX-License-Identifier: Apache-2.0
// The last step of a thin product, which is the same whatever its matrix is made of.
#pragma once

#include <cuda_bf16.h>

#include "thin_linear.h"

namespace starattn::kernels {

// Of one output's number: fp32 plus the bias.
__device__ __forceinline__ float with_bias(const ThinOutput& to, std::int64_t out, float sum) {
  return to.bias ? sum + __bfloat162float(static_cast<const __nv_bfloat16*>(to.bias)[out]) : sum;
}

__device__ __forceinline__ float rounded(float x) {
  return __bfloat162float(__float2bfloat16_rn(x));
}

// Number `out` of a row of y from what the product sums to; second: of the other matrix, if gated.
template <bool kGated>
__device__ __forceinline__ float output_of(const ThinLinear& p, const ThinOutput& to, int row,
                                           std::int64_t out, float sum, float second) {
  float y = with_bias(to, out, sum);
  const std::int64_t at = row * to.n_out + out;
  if constexpr (kGated) {
    const float gate = rounded(y);
    const float up = rounded(with_bias(p.outputs[1], out, second));
    y = __fdividef(gate, 1.f + __expf(-gate)) * up;
  }
  if (to.plus) y += __bfloat162float(static_cast<const __nv_bfloat16*>(to.plus)[at]);
  return y;
}

}  // namespace starattn::kernels
