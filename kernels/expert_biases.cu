// SPDX-License-Identifier: Apache-2.0
// A block a place, a thread eight columns.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>

#include "eight.cuh"
#include "expert_biases.h"
#include "launch.cuh"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 128;

// The bias begins anywhere where a bf16 may.
__device__ __forceinline__ void add_bias(Eight& v, ExpertBiases bias, int expert, int column) {
  if (!bias) return;
  const auto* mine = static_cast<const __nv_bfloat16*>(bias[expert]) + column;
#pragma unroll
  for (int i = 0; i < 8; ++i) v.x[i] += __bfloat162float(mine[i]);
}

__global__ void router_bias_kernel(float* logits, const __nv_bfloat16* bias, std::int64_t n,
                                   int n_experts) {
  let_next_kernel_start();
  await_earlier_kernels();
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x;
  if (i < n) logits[i] += __bfloat162float(bias[i % n_experts]);
}

__global__ void gate_kernel(uint4* gate, const uint4* up, ExpertBiases gate_bias,
                            ExpertBiases up_bias, PlacesOfExperts of, int n_chunks,
                            GatedUnit unit) {
  let_next_kernel_start();
  await_earlier_kernels();
  const std::int64_t row = blockIdx.x;
  const int expert = of.experts[of.places[row]];
  for (int chunk = threadIdx.x; chunk < n_chunks; chunk += kThreads) {
    Eight g = widened(gate[row * n_chunks + chunk]), u = widened(up[row * n_chunks + chunk]);
    add_bias(g, gate_bias, expert, 8 * chunk);
    add_bias(u, up_bias, expert, 8 * chunk);
#pragma unroll
    for (int i = 0; i < 8; ++i) {  // NaN stays NaN
      const float a = g.x[i] > unit.limit ? unit.limit : g.x[i];
      const float b = u.x[i] > unit.limit    ? unit.limit
                      : u.x[i] < -unit.limit ? -unit.limit
                                             : u.x[i];
      g.x[i] = a / (1.f + __expf(-unit.slope * a)) * (b + unit.shift);
    }
    gate[row * n_chunks + chunk] = narrowed(g);
  }
}

__global__ void expert_bias_kernel(uint4* rows, ExpertBiases bias, PlacesOfExperts of,
                                   int n_chunks) {
  let_next_kernel_start();
  await_earlier_kernels();
  const std::int64_t row = blockIdx.x;
  const int expert = of.experts[of.places[row]];
  for (int chunk = threadIdx.x; chunk < n_chunks; chunk += kThreads) {
    Eight v = widened(rows[row * n_chunks + chunk]);
    add_bias(v, bias, expert, 8 * chunk);
    rows[row * n_chunks + chunk] = narrowed(v);
  }
}

int n_chunks_of(std::int64_t width) {
  if (width <= 0 || width % 8 != 0)
    throw BadShape("biases of experts: the width must be a multiple of 8; got " +
                   std::to_string(width));
  return static_cast<int>(width / 8);
}

}  // namespace

void add_router_bias(float* logits, const void* bias, std::int64_t n_rows, int n_experts,
                     Stream stream) {
  const std::int64_t n = n_rows * n_experts;
  if (n == 0) return;
  launch_overlapping("bias of the router", router_bias_kernel,
                     {static_cast<unsigned>((n + kThreads - 1) / kThreads), 1, kThreads}, stream,
                     logits, static_cast<const __nv_bfloat16*>(bias), n, n_experts);
}

void gate_with_biases(void* gate, const void* up, ExpertBiases gate_bias, ExpertBiases up_bias,
                      const PlacesOfExperts& of, std::int64_t width, const GatedUnit& unit,
                      Stream stream) {
  const int n_chunks = n_chunks_of(width);
  if (of.n == 0) return;
  launch_overlapping("gate of experts", gate_kernel, {static_cast<unsigned>(of.n), 1, kThreads},
                     stream, static_cast<uint4*>(gate), static_cast<const uint4*>(up), gate_bias,
                     up_bias, of, n_chunks, unit);
}

void add_expert_biases(void* rows, ExpertBiases bias, const PlacesOfExperts& of, std::int64_t width,
                       Stream stream) {
  const int n_chunks = n_chunks_of(width);
  if (of.n == 0) return;
  launch_overlapping("biases of experts", expert_bias_kernel,
                     {static_cast<unsigned>(of.n), 1, kThreads}, stream, static_cast<uint4*>(rows),
                     bias, of, n_chunks);
}

}  // namespace starattn::kernels
