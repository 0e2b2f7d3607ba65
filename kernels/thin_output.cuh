// SPDX-License-Identifier: Apache-2.0
// Where a thin product's numbers go, which is the same whatever multiplies.
#pragma once

#include <cuda_bf16.h>

#include "peer_lines.cuh"
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
__device__ __forceinline__ float output_of(const ThinOperands& p, const ThinOutput& to, int row,
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

// Tiles of kOut columns, of one output after the other, or of the gated pair.
struct ThinPlace {
  int which;
  std::int64_t first_out;
};
template <bool kGated, int kOut>
__device__ __forceinline__ ThinPlace place_of(const ThinOperands& p, int tile) {
  ThinPlace place{0, static_cast<std::int64_t>(tile) * kOut};
  for (; !kGated && place.which + 1 < p.n_outputs; ++place.which) {
    const std::int64_t whole = (p.outputs[place.which].n_out + kOut - 1) / kOut * kOut;
    if (place.first_out < whole) break;
    place.first_out -= whole;
  }
  return place;
}
template <bool kGated, int kOut>
int n_tiles_of(const ThinOperands& p) {
  std::int64_t n = 0;
  for (int i = 0; i < (kGated ? 1 : p.n_outputs); ++i) n += (p.outputs[i].n_out + kOut - 1) / kOut;
  return static_cast<int>(n);
}

// The numbers of a tile: first, first + stride, ... of its kRows rows of kOut each. sum(row,
// column) is the product, where gated that of matrix rows 0 to kOut - 1 and, behind them, the
// second's. Whole warps call it together.
template <bool kGated, int kRows, int kOut, typename Sum>
__device__ __forceinline__ void put_tile(const ThinLinear& p, const ThinPlace& place, int first,
                                         int stride, const Sum& sum) {
  const ThinOutput& to = p.outputs[place.which];
  static_assert(kRows * kOut % 32 == 0);  // warps stay together
  for (int i = first; i < kRows * kOut; i += stride) {
    const int row = i / kOut, column = i % kOut;
    const std::int64_t out = place.first_out + column;
    const bool is_inside = row < p.n_rows && out < to.n_out;
    __nv_bfloat16 rounded_y{};
    if (is_inside) {
      const float y = output_of<kGated>(p, to, row, out, sum(row, column),
                                        kGated ? sum(row, kOut + column) : 0.f);
      const std::int64_t at = row * to.n_out + out;
      if (p.kind == ThinKind::f32) {
        static_cast<float*>(to.y)[at] = y;
      } else {
        rounded_y = __float2bfloat16_rn(y);
        static_cast<__nv_bfloat16*>(to.y)[at] = rounded_y;
      }
    }
    send_number(p.send, row, out, rounded_y, is_inside);
  }
}

}  // namespace starattn::kernels
