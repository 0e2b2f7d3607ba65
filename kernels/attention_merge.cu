// SPDX-License-Identifier: Apache-2.0
// Merging and finishing partials: fp32, a fixed order of operations for every value.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "attention_merge.h"
#include "launch.cuh"
#include "value_row.cuh"

namespace starattn::kernels {
namespace {

constexpr int kFinishThreads = 256;

// A block a value row, a warp an item, a lane for its columns. The merges are the first warp's.
// Blocks are small so that they fit beside those of the attention kernel that they wait for;
// without splits they need few registers, and many are at work.
template <int kColumns, bool kSplits>
__global__ void __launch_bounds__(32 * kMaxSegments)
    merge_kernel(const __grid_constant__ MergeTask task, std::int64_t n,
                 const __grid_constant__ PartsSend to) {
  extern __shared__ float memory[];  // Part [item][lane], where there are several
  if (to.n_ranks == 0) let_next_kernel_start();
  const std::int64_t row = blockIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const MergeTask::Item item = task.items[warp];
  await_earlier_kernels();
  if (to.n_ranks > 0) let_next_kernel_start();  // it may read what is there before this one
  Part<kColumns> mine;
  if constexpr (kSplits)
    mine = merge_splits<kColumns>(item, task.in_pairs, n, row);
  else
    mine = load<kColumns>(item.splits, row);
  const auto hand_over = [&](const Part<kColumns>& part, const Partial& result, int number) {
    if (to.n_ranks == 0)
      store(part, result, row);
    else
      send(part, line_of<32 * kColumns>(to, number, row, n), to.flag);
  };
  if (task.n_items == 1) return hand_over(mine, item.result, 0);
  auto* parts = reinterpret_cast<Part<kColumns>(*)[32]>(memory);
  parts[warp][lane] = mine;
  __syncthreads();
  if (warp != 0) return;
#pragma unroll 1
  for (int i = 0; i < task.n_merges; ++i) {
    Part<kColumns>& into = parts[task.merges[i].into][lane];
    into = merge(into, parts[task.merges[i].from][lane]);
  }
  int number = 0;
#pragma unroll 1
  for (int i = 0; i < task.n_items; ++i)
    if (task.items[i].result.o) hand_over(parts[i][lane], task.items[i].result, number++);
}

__global__ void finish_kernel(Partial partial, std::int64_t n, int head_dim, __nv_bfloat162* out) {
  const std::int64_t thread = blockIdx.x * static_cast<std::int64_t>(kFinishThreads) + threadIdx.x;
  const std::int64_t row = thread / (head_dim / 4);
  if (row >= n) return;
  const float4 o = reinterpret_cast<const float4*>(partial.o)[thread];
  const float l = partial.l[row];
  const float inverse = l == 0 ? 0.f : 1 / l;
  out[2 * thread] = __floats2bfloat162_rn(o.x * inverse, o.y * inverse);
  out[2 * thread + 1] = __floats2bfloat162_rn(o.z * inverse, o.w * inverse);
}

// The same of two partials merged. A thread has 4 columns of a value row.
__global__ void finish_merged_kernel(Partial a, Partial b, std::int64_t n, int head_dim,
                                     __nv_bfloat162* out) {
  const std::int64_t thread = blockIdx.x * static_cast<std::int64_t>(kFinishThreads) + threadIdx.x;
  const std::int64_t row = thread / (head_dim / 4);
  if (row >= n) return;
  const float top = fmaxf(a.m[row], b.m[row]);
  const float weight_a = merge_weight(a.m[row], top), weight_b = merge_weight(b.m[row], top);
  const float l = merged(a.l[row], weight_a, b.l[row], weight_b);
  const float inverse = l == 0 ? 0.f : 1 / l;
  const float4 x = reinterpret_cast<const float4*>(a.o)[thread];
  const float4 y = reinterpret_cast<const float4*>(b.o)[thread];
  out[2 * thread] = __floats2bfloat162_rn(merged(x.x, weight_a, y.x, weight_b) * inverse,
                                          merged(x.y, weight_a, y.y, weight_b) * inverse);
  out[2 * thread + 1] = __floats2bfloat162_rn(merged(x.z, weight_a, y.z, weight_b) * inverse,
                                              merged(x.w, weight_a, y.w, weight_b) * inverse);
}

template <int kColumns>
void launch_merge(const MergeTask& task, std::int64_t n, Stream stream, const PartsSend& to) {
  Launch size;
  size.n_blocks = static_cast<unsigned>(n);
  size.n_threads = 32 * task.n_items;
  if (task.n_items > 1) size.shared_bytes = task.n_items * 32 * sizeof(Part<kColumns>);
  const bool has_splits =
      std::any_of(task.items, task.items + task.n_items,
                  [](const MergeTask::Item& item) { return item.n_splits > 1; });
  launch_overlapping("merging partials",
                     has_splits ? merge_kernel<kColumns, true> : merge_kernel<kColumns, false>,
                     size, stream, task, n, to);
}

}  // namespace

void merge_items(const MergeTask& task, std::int64_t n, int head_dim, Stream stream,
                 const PartsSend& to) {
  head_dim == 128 ? launch_merge<4>(task, n, stream, to) : launch_merge<2>(task, n, stream, to);
}

void finish_rows(const Partial& partial, std::int64_t n, int head_dim, void* out, Stream stream) {
  const std::int64_t n_threads = n * (head_dim / 4);
  const auto n_blocks = static_cast<unsigned>((n_threads + kFinishThreads - 1) / kFinishThreads);
  finish_kernel<<<n_blocks, kFinishThreads, 0, stream>>>(partial, n, head_dim,
                                                         static_cast<__nv_bfloat162*>(out));
  check_launch("finishing partials");
}

void finish_merged_rows(const Partial& a, const Partial& b, std::int64_t n, int head_dim, void* out,
                        Stream stream) {
  const std::int64_t n_threads = n * (head_dim / 4);
  const auto n_blocks = static_cast<unsigned>((n_threads + kFinishThreads - 1) / kFinishThreads);
  finish_merged_kernel<<<n_blocks, kFinishThreads, 0, stream>>>(a, b, n, head_dim,
                                                                static_cast<__nv_bfloat162*>(out));
  check_launch("finishing merged partials");
}

}  // namespace starattn::kernels
