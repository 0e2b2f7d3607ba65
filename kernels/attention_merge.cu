// SPDX-License-Identifier: Apache-2.0
// Merging and finishing partials: fp32, a fixed order of operations for every value.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "attention_merge.h"
#include "cuda_check.h"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;

// Four values of o of one row, with its m and l.
struct Part {
  float4 o;
  float m, l;
};

__device__ Part load(const Partial& partial, std::int64_t row, int column, int head_dim) {
  return {*reinterpret_cast<const float4*>(partial.o + row * head_dim + column), partial.m[row],
          partial.l[row]};
}

// -inf - -inf never appears: two empty parts merge to the empty one.
__device__ Part merge(const Part& a, const Part& b) {
  const float m = fmaxf(a.m, b.m);
  const float wa = a.m == -INFINITY ? 0.f : expf(a.m - m);
  const float wb = b.m == -INFINITY ? 0.f : expf(b.m - m);
  const float4 o = {a.o.x * wa + b.o.x * wb, a.o.y * wa + b.o.y * wb, a.o.z * wa + b.o.z * wb,
                    a.o.w * wa + b.o.w * wb};
  return {o, m, a.l * wa + b.l * wb};
}

__device__ void store(const Part& part, const Partial& to, std::int64_t row, int column,
                      int head_dim) {
  *reinterpret_cast<float4*>(to.o + row * head_dim + column) = part.o;
  if (column != 0) return;
  to.m[row] = part.m;
  to.l[row] = part.l;
}

// A thread owns four columns of a row. All threads of a row read m and l before one of them writes:
// rows never cross a block and head_dim / 4 divides 256.
__global__ void merge_two_kernel(Partial into, Partial from, std::int64_t n, int head_dim) {
  const std::int64_t thread = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x;
  const std::int64_t row = thread / (head_dim / 4);
  const int column = static_cast<int>(thread % (head_dim / 4)) * 4;
  Part part{};
  if (row < n) part = merge(load(into, row, column, head_dim), load(from, row, column, head_dim));
  __syncthreads();
  if (row < n) store(part, into, row, column, head_dim);
}

// The same threads for the rows; blockIdx.y: the block of keys.
__global__ void merge_pieces_kernel(Partial parts, const __grid_constant__ BlockPieces blocks,
                                    std::int64_t n, int head_dim) {
  const std::int64_t thread = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x;
  const std::int64_t row = thread / (head_dim / 4);
  const int column = static_cast<int>(thread % (head_dim / 4)) * 4;
  if (row >= n) return;
  std::int64_t first = 0;
  for (unsigned i = 0; i < blockIdx.y; ++i) first += blocks.n_pieces[i];
  Part part = load(parts, first * n + row, column, head_dim);
  for (int i = 1; i < blocks.n_pieces[blockIdx.y]; ++i)
    part = merge(part, load(parts, (first + i) * n + row, column, head_dim));
  store(part, blocks.results[blockIdx.y], row, column, head_dim);
}

__global__ void finish_kernel(Partial partial, std::int64_t n, int head_dim, __nv_bfloat162* out) {
  const std::int64_t thread = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x;
  const std::int64_t row = thread / (head_dim / 4);
  if (row >= n) return;
  const float4 o = reinterpret_cast<const float4*>(partial.o)[thread];
  const float l = partial.l[row];
  const float inverse = l == 0 ? 0.f : 1 / l;
  out[2 * thread] = __floats2bfloat162_rn(o.x * inverse, o.y * inverse);
  out[2 * thread + 1] = __floats2bfloat162_rn(o.z * inverse, o.w * inverse);
}

unsigned blocks_for(std::int64_t n, int head_dim) {
  return static_cast<unsigned>((n * (head_dim / 4) + kThreads - 1) / kThreads);
}

}  // namespace

void merge_pieces(const Partial& parts, const BlockPieces& blocks, std::int64_t n, int head_dim,
                  Stream stream) {
  const dim3 grid(blocks_for(n, head_dim), static_cast<unsigned>(blocks.n_blocks));
  merge_pieces_kernel<<<grid, kThreads, 0, stream>>>(parts, blocks, n, head_dim);
  check_launch("merging pieces");
}

void merge_two(const Partial& into, const Partial& from, std::int64_t n, int head_dim,
               Stream stream) {
  merge_two_kernel<<<blocks_for(n, head_dim), kThreads, 0, stream>>>(into, from, n, head_dim);
  check_launch("merging partials");
}

void finish_rows(const Partial& partial, std::int64_t n, int head_dim, void* out, Stream stream) {
  finish_kernel<<<blocks_for(n, head_dim), kThreads, 0, stream>>>(
      partial, n, head_dim, static_cast<__nv_bfloat162*>(out));
  check_launch("finishing partials");
}

}  // namespace starattn::kernels
