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

// A thread owns four columns of a row. result may be piece 0. All threads of a row read m and l of
// all pieces before one of them writes: rows never cross a block and head_dim / 4 divides 256.
__global__ void merge_kernel(Partial first, Partial rest, int n_rest, Partial result,
                             std::int64_t n, int head_dim) {
  const std::int64_t thread = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x;
  const std::int64_t row = thread / (head_dim / 4);
  const int column = static_cast<int>(thread % (head_dim / 4)) * 4;
  Part part{};
  if (row < n) {
    part = load(first, row, column, head_dim);
    for (int i = 0; i < n_rest; ++i) part = merge(part, load(rest, i * n + row, column, head_dim));
  }
  __syncthreads();
  if (row >= n) return;
  *reinterpret_cast<float4*>(result.o + row * head_dim + column) = part.o;
  if (column == 0) {
    result.m[row] = part.m;
    result.l[row] = part.l;
  }
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

void merge_pieces(const Partial& parts, int n_pieces, const Partial& result, std::int64_t n,
                  int head_dim, Stream stream) {
  const Partial rest{parts.o + n * head_dim, parts.m + n, parts.l + n};
  merge_kernel<<<blocks_for(n, head_dim), kThreads, 0, stream>>>(parts, rest, n_pieces - 1, result,
                                                                 n, head_dim);
  check_launch("merging pieces");
}

void merge_two(const Partial& into, const Partial& from, std::int64_t n, int head_dim,
               Stream stream) {
  merge_kernel<<<blocks_for(n, head_dim), kThreads, 0, stream>>>(into, from, 1, into, n, head_dim);
  check_launch("merging partials");
}

void finish_rows(const Partial& partial, std::int64_t n, int head_dim, void* out, Stream stream) {
  finish_kernel<<<blocks_for(n, head_dim), kThreads, 0, stream>>>(
      partial, n, head_dim, static_cast<__nv_bfloat162*>(out));
  check_launch("finishing partials");
}

}  // namespace starattn::kernels
