// SPDX-License-Identifier: Apache-2.0
// A thread has 8 numbers to narrow or 16 to widen; the lanes of a head lie side by side in a warp.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda_check.h"
#include "f8.cuh"
#include "f8_kv.h"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    narrow_kernel(const uint4* x, std::int64_t n_threads, int n_heads, int head_dim,
                  std::int64_t row_bytes, std::uint8_t* to) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int lanes = head_dim / 8;  // of a head
  const int a_row = n_heads * lanes;
  const bool inside = at < n_threads;
  const uint4 packed = inside ? x[at] : uint4{};
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&packed);
  float values[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
  float largest = largest_finite(values);
  for (int offset = lanes / 2; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, offset));
  if (!inside) return;
  const unsigned exponent = f8_exponent(largest);
  const std::int64_t row = at / a_row;
  const int lane = static_cast<int>(at % a_row);
  std::uint8_t* out = to + row * row_bytes;
  *reinterpret_cast<uint2*>(out + lane * 8) = narrow(values, exponent);
  const int width = n_heads * head_dim;
  if (lane % lanes == 0) out[width + lane / lanes] = static_cast<std::uint8_t>(exponent);
  if (lane == 0)
    for (std::int64_t i = width + n_heads; i < row_bytes; ++i) out[i] = 0;
}

__global__ void __launch_bounds__(kThreads)
    widen_kernel(const std::uint8_t* from, std::int64_t n_threads, int n_heads, int head_dim,
                 std::int64_t row_bytes, uint4* to) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= n_threads) return;
  const int width = n_heads * head_dim;
  const std::int64_t row = at / (width / 16);
  const int column = static_cast<int>(at % (width / 16)) * 16;
  const std::uint8_t* bytes = from + row * row_bytes;
  std::uint32_t pairs[8];
  widen(*reinterpret_cast<const uint4*>(bytes + column), bytes[width + column / head_dim], pairs);
  to[2 * at] = {pairs[0], pairs[1], pairs[2], pairs[3]};
  to[2 * at + 1] = {pairs[4], pairs[5], pairs[6], pairs[7]};
}

// A thread a row of keys, or of values.
__global__ void __launch_bounds__(kThreads)
    lay_out_exponents_kernel(const std::uint8_t* k, const std::uint8_t* v, std::int64_t n_rows,
                             int n_heads, std::int64_t row_bytes, std::int64_t stride,
                             std::uint8_t* to) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= stride) return;
  const std::uint8_t* from = (blockIdx.y == 0 ? k : v) + row * row_bytes;
  to += blockIdx.y * n_heads * stride + row;
  for (int head = 0; head < n_heads; ++head) to[head * stride] = row < n_rows ? from[head] : 0;
}

void check_rows(const F8Rows& rows) {
  if (rows.n_rows < 0 || rows.n_heads < 1 || (rows.head_dim != 64 && rows.head_dim != 128))
    throw BadShape("FP8 keys: head_dim must be 64 or 128; got " + std::to_string(rows.n_rows) +
                   " rows of " + std::to_string(rows.n_heads) + " heads of " +
                   std::to_string(rows.head_dim));
}

unsigned blocks_for(std::int64_t n_threads) {
  return static_cast<unsigned>((n_threads + kThreads - 1) / kThreads);
}

}  // namespace

void narrow_rows(const void* x, const F8Rows& to, Stream stream) {
  check_rows(to);
  const std::int64_t n_threads = to.n_rows * to.width() / 8;
  if (n_threads == 0) return;
  narrow_kernel<<<blocks_for(n_threads), kThreads, 0, stream>>>(
      static_cast<const uint4*>(x), n_threads, to.n_heads, to.head_dim, to.row_bytes(),
      static_cast<std::uint8_t*>(const_cast<void*>(to.data)));
  check_launch("narrowing keys or values to FP8");
}

void widen_rows(const F8Rows& from, void* to, Stream stream) {
  check_rows(from);
  const std::int64_t n_threads = from.n_rows * from.width() / 16;
  if (n_threads == 0) return;
  widen_kernel<<<blocks_for(n_threads), kThreads, 0, stream>>>(
      static_cast<const std::uint8_t*>(from.data), n_threads, from.n_heads, from.head_dim,
      from.row_bytes(), static_cast<uint4*>(to));
  check_launch("widening FP8 keys or values");
}

void lay_out_exponents(const F8Rows& k, const F8Rows& v, void* to, Stream stream) {
  check_rows(k);
  check_rows(v);
  if (k.n_rows != v.n_rows || k.n_heads != v.n_heads)
    throw BadShape("exponents of FP8 keys and values: " + std::to_string(k.n_rows) + " rows of " +
                   std::to_string(k.n_heads) + " heads and " + std::to_string(v.n_rows) + " of " +
                   std::to_string(v.n_heads) + " are not alike");
  if (k.n_rows == 0) return;
  const auto exponents = [](const F8Rows& rows) {
    return static_cast<const std::uint8_t*>(rows.data) + rows.width();
  };
  const std::int64_t stride = exponents_stride(k.n_rows);
  lay_out_exponents_kernel<<<dim3(blocks_for(stride), 2), kThreads, 0, stream>>>(
      exponents(k), exponents(v), k.n_rows, k.n_heads, k.row_bytes(), stride,
      static_cast<std::uint8_t*>(to));
  check_launch("laying out exponents of FP8 keys and values");
}

}  // namespace starattn::kernels
