// SPDX-License-Identifier: Apache-2.0
// FP8 matrices of experts, widened for products of many rows.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda_check.h"
#include "experts.h"
#include "f8.cuh"
#include "f8_blocks.h"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;

// 16 columns a thread.
__global__ void __launch_bounds__(kThreads)
    widen_experts_kernel(const __grid_constant__ ExpertMatrices from, uint4* to) {
  const std::int64_t a_row = from.n_cols / 16;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= from.n_rows * a_row) return;
  const std::int64_t row = at / a_row, column = at % a_row * 16;
  const std::int64_t n_blocks = (from.n_cols + from.block_cols - 1) / from.block_cols;
  const float scale =
      from.scales[blockIdx.y][row / from.block_rows * n_blocks + column / from.block_cols];
  std::uint32_t pairs[8];
  widen(__ldg(static_cast<const uint4*>(from.values[blockIdx.y]) + at), pairs);
#pragma unroll
  for (std::uint32_t& pair : pairs) {
    const float2 wide = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
    const __nv_bfloat162 scaled = __floats2bfloat162_rn(wide.x * scale, wide.y * scale);
    pair = reinterpret_cast<const std::uint32_t&>(scaled);
  }
  to += (blockIdx.y * from.n_rows * a_row + at) * 2;
  to[0] = {pairs[0], pairs[1], pairs[2], pairs[3]};
  to[1] = {pairs[4], pairs[5], pairs[6], pairs[7]};
}

}  // namespace

void widen_experts(const ExpertMatrices& from, void* to, Stream stream) {
  check_f8_blocks("FP8 experts", from.n_cols, from.block_rows, from.block_cols);
  const std::int64_t n_threads = from.n_rows * from.n_cols / 16;
  if (n_threads == 0) return;
  const dim3 grid(static_cast<unsigned>((n_threads + kThreads - 1) / kThreads),
                  static_cast<unsigned>(from.n_experts));
  widen_experts_kernel<<<grid, kThreads, 0, stream>>>(from, static_cast<uint4*>(to));
  check_launch("widening FP8 experts");
}

}  // namespace starattn::kernels
