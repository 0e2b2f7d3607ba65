// SPDX-License-Identifier: Apache-2.0
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "eight.cuh"
#include "elementwise.h"
#include "launch.cuh"
#include "norm.cuh"
#include "peer_rows.cuh"
#include "warp.cuh"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWidth = 8;  // bf16 values of one 16-byte access, as in Eight

__device__ __forceinline__ std::int64_t thread_index() {
  return blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
}

__global__ void embed_kernel(const std::int32_t* tokens,
                             const __grid_constant__ EmbeddingTable table, std::int64_t n,
                             std::int64_t row_vectors, uint4* out) {
  let_next_kernel_start();
  await_earlier_kernels();
  const std::int64_t i = thread_index();
  if (i >= n) return;
  const std::int64_t row = i / row_vectors;
  const std::int32_t token = max(0, tokens[row]);
  int part = table.n_parts - 1;
  while (part > 0 && token < table.parts[part].first) --part;
  const auto* rows = static_cast<const uint4*>(table.parts[part].rows);
  out[i] = rows[(token - table.parts[part].first) * row_vectors + i % row_vectors];
}

// One block a row. kHeld vectors stay in registers; wider rows are read a second time.
template <int kHeld>
__global__ void rms_norm_kernel(const uint4* x, const uint4* weight, float eps, int row_vectors,
                                uint4* y) {
  __shared__ float shared[kThreads / 32];
  uint4 scales[kHeld];  // the weights are on their way before x is there
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = threadIdx.x + j * blockDim.x;
    if (i < row_vectors) scales[j] = weight[i];
  }
  let_next_kernel_start();
  await_earlier_kernels();
  x += blockIdx.x * static_cast<std::int64_t>(row_vectors);
  y += blockIdx.x * static_cast<std::int64_t>(row_vectors);
  uint4 held[kHeld] = {};
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = threadIdx.x + j * blockDim.x;
    if (i < row_vectors) held[j] = x[i];
  }
  float squares = 0;
#pragma unroll
  for (const uint4& vector : held) add_squares(squares, vector);
  for (int i = threadIdx.x + kHeld * blockDim.x; i < row_vectors; i += blockDim.x)
    add_squares(squares, x[i]);
  const float mean = block_sum(squares, shared) / static_cast<float>(row_vectors * kWidth);
  const float factor = factor_of(mean, eps);
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = threadIdx.x + j * blockDim.x;
    if (i < row_vectors) y[i] = scaled(held[j], factor, scales[j]);
  }
  for (int i = threadIdx.x + kHeld * blockDim.x; i < row_vectors; i += blockDim.x)
    y[i] = scaled(x[i], factor, weight[i]);
}

// Short rows (the heads of q and k norms): a warp a row.
__global__ void rms_norm_warp_kernel(const uint4* x, const uint4* weight, float eps,
                                     std::int64_t n_rows, int row_vectors, uint4* y) {
  const std::int64_t row = thread_index() / 32;
  const int lane = threadIdx.x % 32;
  let_next_kernel_start();
  await_earlier_kernels();
  if (row >= n_rows) return;
  Eight v{};
  float squares = 0;
  if (lane < row_vectors) v = widened(x[row * row_vectors + lane]);
  for (const float value : v.x) squares += value * value;
  squares = warp_sum(squares);
  if (lane >= row_vectors) return;
  const float factor = factor_of(squares / static_cast<float>(row_vectors * kWidth), eps);
  const Eight scale = widened(weight[lane]);
#pragma unroll
  for (int c = 0; c < kWidth; ++c) v.x[c] = scale.x[c] * (v.x[c] * factor);
  y[row * row_vectors + lane] = narrowed(v);
}

// Eight pairs.
struct RotatedPairs {
  uint4 low, high;

  __device__ __forceinline__ RotatedPairs(const uint4& x, const uint4& y, const float4* cos,
                                          const float4* sin) {
    const float4 c[2] = {cos[0], cos[1]}, s[2] = {sin[0], sin[1]};
    const float* cosine = &c[0].x;
    const float* sine = &s[0].x;
    const Eight a = widened(x), b = widened(y);
    Eight rotated_a, rotated_b;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      rotated_a.x[j] = a.x[j] * cosine[j] - b.x[j] * sine[j];
      rotated_b.x[j] = b.x[j] * cosine[j] + a.x[j] * sine[j];
    }
    low = narrowed(rotated_a);
    high = narrowed(rotated_b);
  }
};

// A thread rotates eight pairs.
__global__ void rotate_kernel(HeadRows q, HeadRows k, const float4* cos, const float4* sin,
                              std::int64_t n, int half_vectors, int rotary_vectors,
                              const __grid_constant__ PeerSend send,
                              const __grid_constant__ PeerRows exchange) {
  const std::int64_t i = thread_index();
  let_next_kernel_start();
  await_earlier_kernels();
  if (i < n) {
    const int pair = static_cast<int>(i % half_vectors);
    const bool is_rotary = pair < rotary_vectors;
    const int column = is_rotary ? pair : pair + rotary_vectors;
    const int apart = is_rotary ? rotary_vectors : half_vectors - rotary_vectors;
    const int n_heads = q.n_heads + k.n_heads;
    const std::int64_t row = i / half_vectors / n_heads;
    const int head = static_cast<int>(i / half_vectors % n_heads);
    const bool is_q = head < q.n_heads;
    uint4* low =
        static_cast<uint4*>(is_q ? q.x : k.x) + column +
        (is_q ? row * q.n_heads + head : row * k.n_heads + head - q.n_heads) * 2 * half_vectors;
    uint4* high = low + apart;
    const std::int64_t angle = (row * half_vectors + pair) * 2;
    const RotatedPairs pairs(*low, *high, cos + angle, sin + angle);
    *low = pairs.low;
    *high = pairs.high;
    if (send.n_peers > 0 && is_q) {
      const std::int64_t at = (head * 2 * half_vectors + column) * kWidth;
      send_vector(send, row, at, pairs.low);
      send_vector(send, row, at + apart * kWidth, pairs.high);
    }
    if (exchange.n_rows > 0 && is_q) {
      uint4* to = static_cast<uint4*>(exchange.all) + row * exchange.n_vectors +
                  exchange.own.first + head * 2 * half_vectors + column;
      to[0] = pairs.low;
      to[apart] = pairs.high;
    }
  }
  if (exchange.n_rows > 0) receive_others(exchange);
}

// Two vectors a thread, both loads of both on their way before the first is used.
__global__ void swiglu_kernel(const uint4* gate, const uint4* up, uint4* y, std::int64_t n) {
  constexpr int kVectors = 2;
  const std::int64_t first =
      blockIdx.x * static_cast<std::int64_t>(blockDim.x) * kVectors + threadIdx.x;
  uint4 g[kVectors], u[kVectors];
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const std::int64_t i = first + j * blockDim.x;
    if (i >= n) break;
    g[j] = gate[i];
    u[j] = up[i];
  }
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const std::int64_t i = first + j * blockDim.x;
    if (i >= n) break;
    const Eight a = widened(g[j]), b = widened(u[j]);
    Eight result;
#pragma unroll
    for (int c = 0; c < kWidth; ++c)
      result.x[c] = __fdividef(a.x[c], 1.f + __expf(-a.x[c])) * b.x[c];
    y[i] = narrowed(result);
  }
}

__global__ void scale_kernel(uint4* x, float factor, std::int64_t n) {
  const std::int64_t i = thread_index();
  if (i >= n) return;
  Eight v = widened(x[i]);
#pragma unroll
  for (float& value : v.x) value *= factor;
  x[i] = narrowed(v);
}

// One block a row.
__global__ void scale_by_gate_kernel(uint4* x, const uint4* by, const uint4* gate, int row_vectors,
                                     int by_vectors) {
  __shared__ float shared[kThreads / 32];
  uint4 first{};  // on its way before the rows are there
  if (threadIdx.x < by_vectors) first = gate[threadIdx.x];
  let_next_kernel_start();
  await_earlier_kernels();
  x += blockIdx.x * static_cast<std::int64_t>(row_vectors);
  by += blockIdx.x * static_cast<std::int64_t>(by_vectors);
  float sum = 0;
  for (int i = threadIdx.x; i < by_vectors; i += blockDim.x) {
    const Eight a = widened(by[i]), b = widened(i < blockDim.x ? first : gate[i]);
#pragma unroll
    for (int c = 0; c < kWidth; ++c) sum = fmaf(a.x[c], b.x[c], sum);
  }
  const float share = 1.f / (1.f + expf(-block_sum(sum, shared)));
  for (int i = threadIdx.x; i < row_vectors; i += blockDim.x) {
    Eight v = widened(x[i]);
    for (float& value : v.x) value *= share;
    x[i] = narrowed(v);
  }
}

__global__ void add_kernel(uint4* x, const uint4* y, std::int64_t n) {
  const std::int64_t i = thread_index();
  if (i >= n) return;
  Eight a = widened(x[i]);
  const Eight b = widened(y[i]);
#pragma unroll
  for (int c = 0; c < kWidth; ++c) a.x[c] += b.x[c];
  x[i] = narrowed(a);
}

__global__ void clear_kernel(float* o, float* m, float* l, std::int64_t n_values, int head_dim) {
  const std::int64_t i = thread_index();
  if (i < n_values * head_dim) o[i] = 0;
  if (i >= n_values) return;
  m[i] = -INFINITY;
  l[i] = 0;
}

template <typename T>
__global__ void to_bf16_kernel(const T* from, std::int64_t n, __nv_bfloat16* to) {
  const std::int64_t i = thread_index();
  if (i < n) to[i] = __float2bfloat16_rn(static_cast<float>(from[i]));
}

// A block a row.
__global__ void f8_to_bf16_kernel(ScaledMatrix from, __nv_bfloat16* to) {
  const std::int64_t row = blockIdx.x;
  const auto block_cols = static_cast<unsigned>(min(from.block_cols, from.n_cols));
  const std::int64_t n_columns = (from.n_cols + block_cols - 1) / block_cols;
  const float* scales = from.scales + (row + from.first_row) / from.block_rows * n_columns;
  const auto* values = static_cast<const __nv_fp8_e4m3*>(from.values) + row * from.n_cols;
  for (unsigned i = threadIdx.x; i < from.n_cols; i += kThreads)
    to[row * from.n_cols + i] =
        __float2bfloat16_rn(static_cast<float>(values[i]) * scales[i / block_cols]);
}

__global__ void to_f32_kernel(const __nv_bfloat16* from, std::int64_t n, float* to) {
  const std::int64_t i = thread_index();
  if (i < n) to[i] = __bfloat162float(from[i]);
}

__device__ __forceinline__ bool is_finite(std::uint16_t bf16) {
  return (bf16 & 0x7f80) != 0x7f80;
}

// 16 bytes at a time where they are aligned. A thread stops at its first find: its others lie
// behind.
__global__ void find_not_finite_kernel(const std::uint16_t* x, std::int64_t n, std::int64_t first,
                                       unsigned long long* place) {
  const std::int64_t step = gridDim.x * static_cast<std::int64_t>(blockDim.x);
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(x) % sizeof(uint4) == 0;
  const std::int64_t n_vectors = is_aligned ? n / kWidth : 0;
  for (std::int64_t i = thread_index(); i < n_vectors; i += step) {
    const uint4 bits = reinterpret_cast<const uint4*>(x)[i];
    const auto* values = reinterpret_cast<const std::uint16_t*>(&bits);
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      if (is_finite(values[c])) continue;
      atomicMin(place, static_cast<unsigned long long>(first + i * kWidth + c));
      return;
    }
  }
  for (std::int64_t i = n_vectors * kWidth + thread_index(); i < n; i += step) {
    if (is_finite(x[i])) continue;
    atomicMin(place, static_cast<unsigned long long>(first + i));
    return;
  }
}

unsigned blocks_for(std::int64_t n) {
  return static_cast<unsigned>((n + kThreads - 1) / kThreads);
}

void require(bool condition, const char* kernel, const char* what, std::int64_t got) {
  if (!condition) {
    throw BadShape(std::string(kernel) + ": " + what + "; got " + std::to_string(got));
  }
}

const uint4* vectors(const void* x) {
  return static_cast<const uint4*>(x);
}
uint4* vectors(void* x) {
  return static_cast<uint4*>(x);
}

}  // namespace

void embed_rows(const std::int32_t* tokens, const EmbeddingTable& table, std::int64_t n_rows,
                std::int64_t width, void* out, Stream stream) {
  require(width % kWidth == 0, "embedding", "the width must be a multiple of 8", width);
  if (n_rows == 0) return;
  const std::int64_t n = n_rows * width / kWidth;
  launch_overlapping("embedding", embed_kernel, {blocks_for(n), 1, kThreads}, stream, tokens, table,
                     n, width / kWidth, vectors(out));
}

void rms_norm(const void* x, const void* weight, float eps, std::int64_t n_rows, std::int64_t width,
              void* y, Stream stream) {
  require(width > 0 && width % kWidth == 0, "RMS norm", "the width must be a multiple of 8", width);
  if (n_rows == 0) return;
  const int row_vectors = static_cast<int>(width / kWidth);
  if (row_vectors <= 32) {
    launch_overlapping("RMS norm", rms_norm_warp_kernel, {blocks_for(n_rows * 32), 1, kThreads},
                       stream, vectors(x), vectors(weight), eps, n_rows, row_vectors, vectors(y));
  } else {
    launch_overlapping("RMS norm", rms_norm_kernel<2>, {static_cast<unsigned>(n_rows), 1, kThreads},
                       stream, vectors(x), vectors(weight), eps, row_vectors, vectors(y));
  }
}

void rotate_rows(const HeadRows& q, const HeadRows& k, const float* cos, const float* sin,
                 std::int64_t n_rows, int head_dim, int rotary, Stream stream, const PeerSend& send,
                 const PeerRows& exchange) {
  require(head_dim % 16 == 0, "RoPE", "head_dim must be a multiple of 16", head_dim);
  require(rotary % 16 == 0 && rotary <= head_dim, "RoPE",
          "what is rotated must be a multiple of 16 within head_dim", rotary);
  if (send.n_peers > 0)
    require(send.n_columns == q.n_heads * head_dim, "RoPE", "a message has as many columns as q",
            send.n_columns);
  const int half_vectors = head_dim / 16;
  const std::int64_t n = n_rows * (q.n_heads + k.n_heads) * half_vectors;
  if (exchange.n_rows > 0) {
    check_columns(exchange);
    require(exchange.n_rows == n_rows && exchange.is_sent && send.n_peers > 0 &&
                takes_exchange(n * 2 * kWidth),
            "RoPE", "an exchange is of the rows of q, few of them, which are sent; rows",
            exchange.n_rows);
  }
  if (n == 0) return;
  launch_overlapping("RoPE", rotate_kernel, {blocks_for(n), 1, kThreads}, stream, q, k,
                     reinterpret_cast<const float4*>(cos), reinterpret_cast<const float4*>(sin), n,
                     half_vectors, rotary / 16, send, exchange);
}

bool takes_exchange(std::int64_t n_values) {
  return n_values <= static_cast<std::int64_t>(most_waiting_blocks()) * kThreads * 2 * kWidth;
}

void swiglu(const void* gate, const void* up, void* y, std::int64_t n, Stream stream) {
  require(n % kWidth == 0, "SwiGLU", "the number of values must be a multiple of 8", n);
  if (n == 0) return;
  swiglu_kernel<<<blocks_for((n / kWidth + 1) / 2), kThreads, 0, stream>>>(
      vectors(gate), vectors(up), vectors(y), n / kWidth);
  check_launch("SwiGLU");
}

void add_rows(void* x, const void* y, std::int64_t n, Stream stream) {
  require(n % kWidth == 0, "adding", "the number of values must be a multiple of 8", n);
  if (n == 0) return;
  add_kernel<<<blocks_for(n / kWidth), kThreads, 0, stream>>>(vectors(x), vectors(y), n / kWidth);
  check_launch("adding");
}

void scale_rows(void* x, float factor, std::int64_t n, Stream stream) {
  require(n % kWidth == 0, "scaling", "the number of values must be a multiple of 8", n);
  if (n == 0) return;
  scale_kernel<<<blocks_for(n / kWidth), kThreads, 0, stream>>>(vectors(x), factor, n / kWidth);
  check_launch("scaling");
}

void scale_by_gate(void* x, const void* by, const void* gate, std::int64_t n_rows,
                   std::int64_t width, std::int64_t by_width, Stream stream) {
  for (const std::int64_t n : {width, by_width})
    require(n > 0 && n % kWidth == 0, "scaling by a gate", "widths must be multiples of 8", n);
  if (n_rows == 0) return;
  launch_overlapping("scaling by a gate", scale_by_gate_kernel,
                     {static_cast<unsigned>(n_rows), 1, kThreads}, stream, vectors(x), vectors(by),
                     vectors(gate), static_cast<int>(width / kWidth),
                     static_cast<int>(by_width / kWidth));
}

void clear_partial(float* o, float* m, float* l, std::int64_t n_values, int head_dim,
                   Stream stream) {
  if (n_values == 0) return;
  clear_kernel<<<blocks_for(n_values * head_dim), kThreads, 0, stream>>>(o, m, l, n_values,
                                                                         head_dim);
  check_launch("clearing a partial");
}

void to_bf16(const void* from, Float type, std::int64_t n, void* to, Stream stream) {
  if (n == 0) return;
  auto* out = static_cast<__nv_bfloat16*>(to);
  if (type == Float::f16)
    to_bf16_kernel<<<blocks_for(n), kThreads, 0, stream>>>(static_cast<const __half*>(from), n,
                                                           out);
  else if (type == Float::f32)
    to_bf16_kernel<<<blocks_for(n), kThreads, 0, stream>>>(static_cast<const float*>(from), n, out);
  else
    check_cuda(cudaMemcpyAsync(to, from, n * 2, cudaMemcpyDeviceToDevice, stream), "copying bf16");
  check_launch("conversion to bf16");
}

void f8_to_bf16(const ScaledMatrix& from, void* to, Stream stream) {
  require(from.block_rows > 0 && from.block_cols > 0, "widening FP8", "blocks must not be empty",
          from.block_rows);
  if (from.n_rows == 0) return;
  f8_to_bf16_kernel<<<static_cast<unsigned>(from.n_rows), kThreads, 0, stream>>>(
      from, static_cast<__nv_bfloat16*>(to));
  check_launch("widening FP8");
}

void to_f32(const void* from_bf16, std::int64_t n, float* to, Stream stream) {
  if (n == 0) return;
  to_f32_kernel<<<blocks_for(n), kThreads, 0, stream>>>(
      static_cast<const __nv_bfloat16*>(from_bf16), n, to);
  check_launch("conversion to fp32");
}

void find_not_finite(const void* x, std::int64_t n, std::int64_t first, std::int64_t* place,
                     Stream stream) {
  constexpr std::int64_t kMostBlocks = 2048;  // enough to keep any device's memory busy
  if (n == 0) return;
  const unsigned n_blocks = blocks_for(std::min(kMostBlocks * kThreads, (n + kWidth - 1) / kWidth));
  find_not_finite_kernel<<<n_blocks, kThreads, 0, stream>>>(
      static_cast<const std::uint16_t*>(x), n, first, reinterpret_cast<unsigned long long*>(place));
  check_launch("the search for values that are not finite");
}

}  // namespace starattn::kernels
