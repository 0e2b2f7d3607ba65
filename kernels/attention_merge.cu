// SPDX-License-Identifier: Apache-2.0
// Merging and finishing partials: fp32, a fixed order of operations for every value.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "attention_merge.h"
#include "launch.cuh"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
static_assert(kWarps >= kMaxSegments);

// A lane's columns of one value row, with the row's m and l.
template <int kColumns>
struct Part {
  float o[kColumns];
  float m, l;
};

template <int kColumns>
__device__ Part<kColumns> load(const Partial& from, std::int64_t row) {
  Part<kColumns> part;
  const float* o = from.o + (row * 32 + threadIdx.x % 32) * kColumns;
  if constexpr (kColumns == 4) {
    const float4 values = *reinterpret_cast<const float4*>(o);
    part.o[0] = values.x, part.o[1] = values.y, part.o[2] = values.z, part.o[3] = values.w;
  } else {
    const float2 values = *reinterpret_cast<const float2*>(o);
    part.o[0] = values.x, part.o[1] = values.y;
  }
  part.m = from.m[row];
  part.l = from.l[row];
  return part;
}

template <int kColumns>
__device__ void store(const Part<kColumns>& part, const Partial& to, std::int64_t row) {
  const int lane = threadIdx.x % 32;
  float* o = to.o + (row * 32 + lane) * kColumns;
  if constexpr (kColumns == 4)
    *reinterpret_cast<float4*>(o) = {part.o[0], part.o[1], part.o[2], part.o[3]};
  else
    *reinterpret_cast<float2*>(o) = {part.o[0], part.o[1]};
  if (lane != 0) return;
  to.m[row] = part.m;
  to.l[row] = part.l;
}

// -inf - -inf never appears: two empty parts merge to the empty one. Which product is rounded first
// is written out, so that every kernel that this is compiled into gives the same bits.
template <int kColumns>
__device__ Part<kColumns> merge(const Part<kColumns>& a, const Part<kColumns>& b) {
  Part<kColumns> both;
  both.m = fmaxf(a.m, b.m);
  const float wa = a.m == -INFINITY ? 0.f : expf(a.m - both.m);
  const float wb = b.m == -INFINITY ? 0.f : expf(b.m - both.m);
#pragma unroll
  for (int c = 0; c < kColumns; ++c) both.o[c] = __fmaf_rn(a.o[c], wa, __fmul_rn(b.o[c], wb));
  both.l = __fmaf_rn(a.l, wa, __fmul_rn(b.l, wb));
  return both;
}

// A warp a value row and item, rows in turn within a block. The merges of a row are its first
// warp's, a lane for its columns.
template <int kColumns>
__global__ void merge_kernel(const __grid_constant__ MergeTask task, std::int64_t n) {
  __shared__ Part<kColumns> parts[kWarps][32];
  let_next_kernel_start();
  await_earlier_kernels();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int rows_per_block = blockDim.x / 32 / task.n_items;
  const std::int64_t row =
      blockIdx.x * static_cast<std::int64_t>(rows_per_block) + warp / task.n_items;
  const MergeTask::Item& item = task.items[warp % task.n_items];
  if (row < n) {
    Part<kColumns> mine = load<kColumns>(item.pieces, row);
#pragma unroll 8
    for (int i = 1; i < item.n_pieces; ++i)
      mine = merge(mine, load<kColumns>(item.pieces, i * n + row));
    parts[warp][lane] = mine;
  }
  __syncthreads();
  if (row >= n || warp % task.n_items != 0) return;
  Part<kColumns>(*of_row)[32] = parts + warp;
  for (int i = 0; i < task.n_merges; ++i) {
    Part<kColumns>& into = of_row[task.merges[i].into][lane];
    into = merge(into, of_row[task.merges[i].from][lane]);
  }
  for (int i = 0; i < task.n_items; ++i)
    if (task.items[i].result.o) store(of_row[i][lane], task.items[i].result, row);
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

}  // namespace

void merge_items(const MergeTask& task, std::int64_t n, int head_dim, Stream stream) {
  const int rows_per_block = kWarps / task.n_items;
  const auto grid = static_cast<unsigned>((n + rows_per_block - 1) / rows_per_block);
  launch_overlapping("merging partials", head_dim == 128 ? merge_kernel<4> : merge_kernel<2>,
                     {grid, 1, 32 * task.n_items * rows_per_block}, stream, task, n);
}

void finish_rows(const Partial& partial, std::int64_t n, int head_dim, void* out, Stream stream) {
  const std::int64_t n_threads = n * (head_dim / 4);
  const auto n_blocks = static_cast<unsigned>((n_threads + kThreads - 1) / kThreads);
  finish_kernel<<<n_blocks, kThreads, 0, stream>>>(partial, n, head_dim,
                                                   static_cast<__nv_bfloat162*>(out));
  check_launch("finishing partials");
}

}  // namespace starattn::kernels
