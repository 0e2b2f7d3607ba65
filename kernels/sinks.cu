// SPDX-License-Identifier: Apache-2.0
// A warp a row and head.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "launch.cuh"
#include "merging.cuh"
#include "sinks.h"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void sinks_kernel(Partial partial, const __nv_bfloat16* sinks, std::int64_t n,
                             int n_heads, int head_dim) {
  let_next_kernel_start();
  await_earlier_kernels();
  const std::int64_t at = (blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x) / 32;
  if (at >= n) return;
  const int lane = threadIdx.x % 32;
  const float sink = __bfloat162float(sinks[at % n_heads]);
  const float m = partial.m[at], l = partial.l[at];
  const float top = fmaxf(m, sink);
  const float weight = merge_weight(m, top);
  for (int column = lane; column < head_dim; column += 32)
    partial.o[at * head_dim + column] *= weight;
  __syncwarp();  // m and l have been read
  if (lane > 0) return;
  partial.m[at] = top;
  partial.l[at] = merged(l, weight, 1.f, merge_weight(sink, top));
}

}  // namespace

void merge_sinks(const Partial& partial, const void* sinks, std::int64_t n_rows,
                 const AttentionShape& shape, Stream stream) {
  const std::int64_t n = n_rows * shape.n_heads;
  if (n == 0) return;
  const auto n_blocks = static_cast<unsigned>((n * 32 + kThreads - 1) / kThreads);
  launch_overlapping("attention sinks", sinks_kernel, {n_blocks, 1, kThreads}, stream, partial,
                     static_cast<const __nv_bfloat16*>(sinks), n, shape.n_heads, shape.head_dim);
}

}  // namespace starattn::kernels
