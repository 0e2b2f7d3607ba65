// SPDX-License-Identifier: Apache-2.0
// The rounding of rows, a block a row, and who takes their products.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>

#include "attention.h"
#include "cuda_check.h"
#include "f8.cuh"
#include "f8_linear.h"
#include "f8_linear_sm90.h"

namespace starattn::kernels {
namespace {

constexpr int kRoundThreads = 256;  // a row

__device__ __forceinline__ void widen_eight(const uint4& packed, float (&values)[8]) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&packed);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

__global__ void __launch_bounds__(kRoundThreads)
    round_kernel(const uint4* x, int n_vectors, uint2* to, float* scales) {
  __shared__ float largest_of_warp[kRoundThreads / 32];
  const std::int64_t row = blockIdx.x;
  x += row * n_vectors;
  to += row * n_vectors;
  float values[8];
  float largest = 0;
  for (int i = threadIdx.x; i < n_vectors; i += kRoundThreads) {
    widen_eight(x[i], values);
    largest = fmaxf(largest, largest_finite(values));
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, offset));
  if (threadIdx.x % 32 == 0) largest_of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (const float of_warp : largest_of_warp) largest = fmaxf(largest, of_warp);
  const unsigned exponent = f8_exponent(largest);
  for (int i = threadIdx.x; i < n_vectors; i += kRoundThreads) {
    widen_eight(x[i], values);
    to[i] = narrow(values, exponent);
  }
  if (threadIdx.x == 0) scales[row] = __uint_as_float(exponent << 23);
}

}  // namespace

void round_rows(const void* x, const RoundedRows& to, Stream stream) {
  if (to.width % 8 != 0)
    throw BadShape("rounding rows to FP8: expected a width that is a multiple of 8, got " +
                   std::to_string(to.width));
  if (to.n_rows == 0) return;
  round_kernel<<<static_cast<unsigned>(to.n_rows), kRoundThreads, 0, stream>>>(
      static_cast<const uint4*>(x), static_cast<int>(to.width / 8), static_cast<uint2*>(to.values),
      to.scales);
  check_launch("rounding rows to FP8");
}

bool takes_f8_linear(const ScaledMatrix& w) {
  const bool is_whole = w.block_cols >= w.n_cols;
  const bool has_whole_tiles =
      w.block_rows % 128 == 0 && w.first_row % 128 == 0 && w.block_cols % 128 == 0;
  return takes_hopper_kernels() && w.n_cols % 16 == 0 && w.n_rows % 8 == 0 &&
         (is_whole || has_whole_tiles);
}

void f8_linear(const F8Linear& p, Stream stream) {
  if (!takes_f8_linear(p.w) || p.x.width != p.w.n_cols)
    throw BadShape("FP8 product: rows of " + std::to_string(p.x.width) + " with [" +
                   std::to_string(p.w.n_rows) + ", " + std::to_string(p.w.n_cols) +
                   "] in blocks of [" + std::to_string(p.w.block_rows) + ", " +
                   std::to_string(p.w.block_cols) + "]");
  if (p.x.n_rows > 0 && p.w.n_rows > 0) f8_linear_sm90(p, stream);
}

}  // namespace starattn::kernels
