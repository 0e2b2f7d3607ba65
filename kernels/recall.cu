// SPDX-License-Identifier: Apache-2.0
// Recall's reductions, its choice and its rows, on every GPU; the two products for GPUs without
// Hopper's instructions, plainly: a thread a score.
#include "recall.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <string>

#include "cuda_check.h"
#include "recall_sm90.h"
#include "warp.cuh"

namespace starattn::kernels {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kHighest = 80;

void require(bool condition, const char* message) {
  if (!condition) throw BadShape(std::string("recall: ") + message);
}

// --- likeness to the mean key

constexpr int kSlabTokens = 128;
constexpr int kSumThreads = 128;

// sums [slab, width]: over the tokens of a slab, two columns a thread.
__global__ void sum_slabs(const __nv_bfloat162* k, int n_tokens, int width, float* sums) {
  const int column = 2 * (blockIdx.y * kSumThreads + threadIdx.x);
  if (column >= width) return;
  const int first = blockIdx.x * kSlabTokens;
  const int end = min(n_tokens, first + kSlabTokens);
  float2 sum{0, 0};
  for (int t = first; t < end; ++t) {
    const float2 x = __bfloat1622float2(k[(static_cast<std::int64_t>(t) * width + column) / 2]);
    sum.x += x.x;
    sum.y += x.y;
  }
  float* to = sums + static_cast<std::int64_t>(blockIdx.x) * width + column;
  to[0] = sum.x;
  to[1] = sum.y;
}

// mean [n_kv_heads, head_dim]: of unit length, or 0. A block a head, a thread a column.
__global__ void unit_means(const float* sums, int n_slabs, int width, float* mean) {
  __shared__ float squares[128];
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  float sum = 0;
  for (int slab = 0; slab < n_slabs; ++slab)
    sum += sums[static_cast<std::int64_t>(slab) * width + column];
  squares[threadIdx.x] = sum * sum;
  __syncthreads();
  float square = 0;
  for (int i = 0; i < static_cast<int>(blockDim.x); ++i) square += squares[i];
  mean[column] = square > 0 ? sum * rsqrtf(square) : 0;
}

// A warp a token.
__global__ void unlikeness_of_tokens(const __nv_bfloat16* k, const float* mean, int n_tokens,
                                     int n_kv_heads, int head_dim, float* unlikeness) {
  const int token = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (token >= n_tokens) return;
  const __nv_bfloat16* key = k + static_cast<std::int64_t>(token) * n_kv_heads * head_dim;
  float total = 0;
  for (int head = 0; head < n_kv_heads; ++head) {
    float dot = 0, square = 0;
    for (int c = head * head_dim + lane; c < (head + 1) * head_dim; c += 32) {
      const float x = __bfloat162float(key[c]);
      dot += x * mean[c];
      square += x * x;
    }
    dot = warp_sum(dot);
    square = warp_sum(square);
    total += square > 0 ? dot * rsqrtf(square) : 0;
  }
  if (lane == 0) unlikeness[token] = -total / n_kv_heads;
}

// --- the choice

constexpr int kChooseThreads = 1024;
constexpr int kCopies = 8;  // histograms, so that warps meet less

// Unsigned integers in the order of the scores; what is not a number is lowest.
__device__ __forceinline__ unsigned order_of(float score) {
  if (score != score) return 0;
  const unsigned bits = __float_as_uint(score);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Exclusive sum over the block's threads, and the sum of all.
__device__ int sum_before(int mine, int& all) {
  __shared__ int warps[kChooseThreads / 32];
  const int lane = threadIdx.x % 32;
  int inclusive = mine;
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(kAllLanes, inclusive, offset);
    if (lane >= offset) inclusive += other;
  }
  __syncthreads();  // the last sums have been read
  if (lane == 31) warps[threadIdx.x / 32] = inclusive;
  __syncthreads();
  const int of_warp = warps[lane];
  int before = of_warp;
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(kAllLanes, before, offset);
    if (lane >= offset) before += other;
  }
  all = __shfl_sync(kAllLanes, before, 31);
  before -= of_warp;
  return __shfl_sync(kAllLanes, before, threadIdx.x / 32) + inclusive - mine;
}

// One block: finds the lowest chosen score a byte at a time, then writes what lies above it, and of
// its equals the first.
__global__ void __launch_bounds__(kChooseThreads)
    choose_kernel(const float* scores, int n, int n_best, std::int32_t* best, float* best_scores) {
  __shared__ int histogram[kCopies][256];
  __shared__ unsigned chosen_byte;
  __shared__ int n_of_equals;
  unsigned prefix = 0, known = 0;
  int n_left = n_best;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kCopies * 256; i += kChooseThreads)
      histogram[i / 256][i % 256] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kChooseThreads) {
      const unsigned order = order_of(scores[i]);
      if ((order & known) == prefix)
        atomicAdd(&histogram[threadIdx.x / 32 % kCopies][order >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x < 256) {
      int sum = 0;
      for (int copy = 0; copy < kCopies; ++copy) sum += histogram[copy][threadIdx.x];
      histogram[0][threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int byte = 255;
      for (; histogram[0][byte] < n_left; --byte) n_left -= histogram[0][byte];
      chosen_byte = byte;
      n_of_equals = n_left;
    }
    __syncthreads();
    prefix |= chosen_byte << shift;
    known |= 255u << shift;
    n_left = n_of_equals;
    __syncthreads();
  }
  int n_written = 0, n_equals = 0;
  for (int first = 0; first < n; first += kChooseThreads) {
    const int i = first + threadIdx.x;
    const unsigned order = i < n ? order_of(scores[i]) : 0;
    const bool is_equal = i < n && order == prefix;
    int all_equals = 0, all_chosen = 0;
    const int equals_before = n_equals + sum_before(is_equal, all_equals);
    const bool is_chosen = i < n && (order > prefix || (is_equal && equals_before < n_left));
    const int place = n_written + sum_before(is_chosen, all_chosen);
    if (is_chosen) {
      best[place] = i;
      best_scores[place] = scores[i];
    }
    n_equals += all_equals;
    n_written += all_chosen;
  }
}

// --- rows

constexpr int kSourcesAtOnce = 64;

struct GatherTask {
  const void* sources[kSourcesAtOnce];
  std::int64_t ends[kSourcesAtOnce];  // among all rows
  std::int64_t first;                 // row of the first source, among all rows
  int n_sources;
  const std::int32_t* rows;
  std::int64_t n_rows;
  int row_vectors;  // of 16 bytes
  uint4* to;
};

// A warp a row; rows of other sources are left to other calls.
__global__ void gather_kernel(const __grid_constant__ GatherTask task) {
  const std::int64_t i =
      static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (i >= task.n_rows) return;
  const std::int64_t row = task.rows[i];
  if (row < task.first || row >= task.ends[task.n_sources - 1]) return;
  int source = 0;
  while (row >= task.ends[source]) ++source;
  const std::int64_t at = row - (source == 0 ? task.first : task.ends[source - 1]);
  const uint4* from = static_cast<const uint4*>(task.sources[source]) + at * task.row_vectors;
  uint4* to = task.to + i * task.row_vectors;
  for (int v = threadIdx.x % 32; v < task.row_vectors; v += 32) to[v] = from[v];
}

// --- the products without tensor cores

__device__ float dot(const __nv_bfloat16* a, const __nv_bfloat16* b, int head_dim) {
  float sum = 0;
  for (int c = 0; c < head_dim; ++c) sum += __bfloat162float(a[c]) * __bfloat162float(b[c]);
  return sum;
}

struct PlainTask {
  const __nv_bfloat16* q;
  const __nv_bfloat16* k[2];
  int n_tokens[2];
  int n_rows, n_heads, n_kv_heads, head_dim;
  float scale;
};

__device__ float score(const PlainTask& task, int segment, int row, int head, int token) {
  const int kv_head = head / (task.n_heads / task.n_kv_heads);
  const std::int64_t d = task.head_dim;
  return task.scale *
         dot(task.q + (static_cast<std::int64_t>(row) * task.n_heads + head) * d,
             task.k[segment] + (static_cast<std::int64_t>(token) * task.n_kv_heads + kv_head) * d,
             task.head_dim);
}

// A block a row and head; its threads' sums are added in order.
__global__ void plain_log_sum_exp(const PlainTask task, float* z) {
  __shared__ float tops[128], sums[128];
  const int row = blockIdx.x / task.n_heads, head = blockIdx.x % task.n_heads;
  float top = -INFINITY, sum = 0;
  for (int segment = 0; segment < 2; ++segment) {
    const int n = task.n_tokens[segment];
    for (int t = threadIdx.x; t < n; t += blockDim.x) {
      const float s = score(task, segment, row, head, t);
      const float new_top = fmaxf(top, s);
      sum = sum * expf(top - new_top) + expf(s - new_top);
      top = new_top;
    }
  }
  tops[threadIdx.x] = top;
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < static_cast<int>(blockDim.x); ++i) {
    if (sums[i] == 0) continue;
    const float new_top = fmaxf(top, tops[i]);
    sum = sum * expf(top - new_top) + sums[i] * expf(tops[i] - new_top);
    top = new_top;
  }
  z[blockIdx.x] = top + logf(sum);
}

// own as in recall_sm90.h. A thread a key.
__global__ void plain_scores(const PlainTask task, const float* own, int n_padded, float* scores) {
  const int token = blockIdx.x * blockDim.x + threadIdx.x;
  if (token >= task.n_tokens[1]) return;
  float total = 0;
  for (int head = 0; head < task.n_heads; ++head) {
    float best = -INFINITY;
    for (int row = 0; row < task.n_rows; ++row)
      best = fmaxf(best, score(task, 1, row, head, token) * kLog2E +
                             own[static_cast<std::int64_t>(head) * n_padded + row]);
    total += exp2f(fminf(best, kHighest * kLog2E));
  }
  scores[token] = total / task.n_heads;
}

// own [n_heads, n_padded] = -z log2(e); -inf behind the last row.
__global__ void turn_sums(const float* z, int n_rows, int n_heads, int n_padded, float* own) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  const int head = blockIdx.y;
  if (row >= n_padded) return;
  own[static_cast<std::int64_t>(head) * n_padded + row] =
      row < n_rows ? -z[static_cast<std::int64_t>(row) * n_heads + head] * kLog2E : -INFINITY;
}

PlainTask plain_task(const AskingRows& asking, const KvSegment& first, const KvSegment& second) {
  return {static_cast<const __nv_bfloat16*>(asking.q),
          {static_cast<const __nv_bfloat16*>(first.k), static_cast<const __nv_bfloat16*>(second.k)},
          {static_cast<int>(first.n_tokens), static_cast<int>(second.n_tokens)},
          static_cast<int>(asking.n_rows),
          asking.shape.n_heads,
          asking.shape.n_kv_heads,
          asking.shape.head_dim,
          asking.scale};
}

unsigned divide_up(std::int64_t a, std::int64_t b) {
  return static_cast<unsigned>((a + b - 1) / b);
}

}  // namespace

std::size_t unlikeness_workspace(std::int64_t n_tokens, const AttentionShape& shape) {
  const std::size_t width = static_cast<std::size_t>(shape.n_kv_heads) * shape.head_dim;
  return (divide_up(n_tokens, kSlabTokens) + 1) * width * sizeof(float);
}

void unlikeness_to_mean(const void* k, std::int64_t n_tokens, const AttentionShape& shape,
                        float* unlikeness, void* workspace, Stream stream) {
  check_shape(shape);
  require(n_tokens > 0 && n_tokens < (std::int64_t{1} << 30), "a block has 1 to 2^30 tokens");
  const int width = shape.n_kv_heads * shape.head_dim;
  const unsigned n_slabs = divide_up(n_tokens, kSlabTokens);
  const int n = static_cast<int>(n_tokens);
  auto* mean = static_cast<float*>(workspace);
  float* sums = mean + width;
  const dim3 grid(n_slabs, divide_up(width, 2 * kSumThreads));
  sum_slabs<<<grid, kSumThreads, 0, stream>>>(static_cast<const __nv_bfloat162*>(k), n, width,
                                              sums);
  check_launch("recall: mean key");
  unit_means<<<shape.n_kv_heads, shape.head_dim, 0, stream>>>(sums, static_cast<int>(n_slabs),
                                                              width, mean);
  check_launch("recall: mean key");
  constexpr int kThreads = 256;
  unlikeness_of_tokens<<<divide_up(n_tokens, kThreads / 32), kThreads, 0, stream>>>(
      static_cast<const __nv_bfloat16*>(k), mean, n, shape.n_kv_heads, shape.head_dim, unlikeness);
  check_launch("recall: likeness");
}

void choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                 std::int32_t* best, float* best_scores, Stream stream) {
  require(n_scores >= 0 && n_scores < (std::int64_t{1} << 31), "at most 2^31 scores");
  require(n_best >= 0 && n_best <= n_scores, "no more than there are can be chosen");
  if (n_best == 0) return;
  choose_kernel<<<1, kChooseThreads, 0, stream>>>(scores, static_cast<int>(n_scores),
                                                  static_cast<int>(n_best), best, best_scores);
  check_launch("recall: choice");
}

void gather_rows(const RowSource* sources, int n_sources, const std::int32_t* rows,
                 std::int64_t n_rows, std::size_t row_bytes, void* to, Stream stream) {
  require(row_bytes % 16 == 0, "rows must be a multiple of 16 bytes");
  if (n_rows == 0) return;
  GatherTask task{};
  task.rows = rows;
  task.n_rows = n_rows;
  task.row_vectors = static_cast<int>(row_bytes / 16);
  task.to = static_cast<uint4*>(to);
  std::int64_t end = 0;
  for (int first = 0; first < n_sources; first += kSourcesAtOnce) {
    task.first = end;
    task.n_sources = std::min(kSourcesAtOnce, n_sources - first);
    for (int i = 0; i < task.n_sources; ++i) {
      task.sources[i] = sources[first + i].data;
      task.ends[i] = end += sources[first + i].n_rows;
    }
    constexpr int kThreads = 256;
    gather_kernel<<<divide_up(n_rows, kThreads / 32), kThreads, 0, stream>>>(task);
    check_launch("recall: gather rows");
  }
}

void log_sum_exp(const AskingRows& asking, const KvSegment& first, const KvSegment& second,
                 float* z, Stream stream) {
  check_shape(asking.shape);
  if (asking.n_rows == 0) return;
  require(first.n_tokens + second.n_tokens > 0, "a row sees at least one key");
  if (takes_hopper_kernels()) return log_sum_exp_sm90(asking, first, second, z, stream);
  plain_log_sum_exp<<<static_cast<unsigned>(asking.n_rows * asking.shape.n_heads), 128, 0,
                      stream>>>(plain_task(asking, first, second), z);
  check_launch("recall: log-sum-exp");
}

std::size_t score_workspace(const AskingRows& asking) {
  return static_cast<std::size_t>(padded_rows(asking.n_rows) * asking.shape.n_heads) *
         sizeof(float);
}

void score_keys(const AskingRows& asking, const float* z, const KvSegment& keys, float* scores,
                void* workspace, Stream stream) {
  check_shape(asking.shape);
  if (keys.n_tokens == 0) return;
  require(asking.n_rows > 0, "no row asks");
  auto* own = static_cast<float*>(workspace);
  const int n_padded = static_cast<int>(padded_rows(asking.n_rows));
  constexpr int kThreads = 128;
  const dim3 grid(divide_up(n_padded, kThreads), static_cast<unsigned>(asking.shape.n_heads));
  turn_sums<<<grid, kThreads, 0, stream>>>(z, static_cast<int>(asking.n_rows), asking.shape.n_heads,
                                           n_padded, own);
  check_launch("recall: scores");
  if (takes_hopper_kernels()) return score_keys_sm90(asking, own, keys, scores, stream);
  const PlainTask task = plain_task(asking, {}, keys);
  plain_scores<<<divide_up(keys.n_tokens, kThreads), kThreads, 0, stream>>>(task, own, n_padded,
                                                                            scores);
  check_launch("recall: scores");
}

}  // namespace starattn::kernels
