// SPDX-License-Identifier: Apache-2.0
// A block owns kOut rows of the matrix; its eight warps share out n_in in runs of kRun columns and
// multiply with mma.sync, the matrix as the left operand (16 rows) and x as the right one (8 rows
// of x at a time). Sixteen bytes a thread come straight from memory into an operand: the product's
// columns may be numbered in any order, so long as both operands agree.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda_check.h"
#include "thin_linear.h"

namespace starattn::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kRun = 128;      // columns that a warp takes at a time
constexpr int kStep = 32;      // columns that a warp loads with one access a row
constexpr int kMostRows = 32;  // rows of x of one launch

__device__ __forceinline__ void mma(float (&c)[4], std::uint32_t a0, std::uint32_t a1,
                                    std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                    std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint4 load_once(const __nv_bfloat16* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// kTiles: tiles of 16 matrix rows of a block; kColumns: tiles of 8 rows of x.
template <int kTiles, int kColumns>
__global__ void __launch_bounds__(kWarps * 32)
    thin_linear_kernel(const __grid_constant__ ThinLinear p) {
  constexpr int kOut = 16 * kTiles;
  constexpr int kRows = 8 * kColumns;
  __shared__ float sums[kWarps][kRows][kOut + 1];
  std::int64_t first_out = static_cast<std::int64_t>(blockIdx.x) * kOut;
  int which = 0;
  for (; which + 1 < p.n_outputs; ++which) {
    const std::int64_t whole = (p.outputs[which].n_out + kOut - 1) / kOut * kOut;
    if (first_out < whole) break;
    first_out -= whole;
  }
  const ThinOutput& to = p.outputs[which];
  const auto* x = static_cast<const __nv_bfloat16*>(p.x);
  const auto* w = static_cast<const __nv_bfloat16*>(to.w);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  float c[kTiles][kColumns][4] = {};
  for (std::int64_t run = warp * kRun; run < p.n_in; run += kWarps * kRun) {
    uint4 a[kRun / kStep][kTiles][2];
#pragma unroll
    for (int s = 0; s < kRun / kStep; ++s) {
      const std::int64_t column = run + s * kStep + lane % 4 * 8;
#pragma unroll
      for (int t = 0; t < 2 * kTiles; ++t) {
        const std::int64_t out = first_out + 8 * t + lane / 4;
        a[s][t / 2][t % 2] = column < p.n_in && out < to.n_out
                                 ? load_once(w + out * p.n_in + column)
                                 : make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int s = 0; s < kRun / kStep; ++s) {
      const std::int64_t column = run + s * kStep + lane % 4 * 8;
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        const std::int64_t row = 8 * n + lane / 4;
        const uint4 b = column < p.n_in && row < p.n_rows
                            ? *reinterpret_cast<const uint4*>(x + row * p.n_in + column)
                            : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          const uint4& low = a[s][t][0];
          const uint4& high = a[s][t][1];
          mma(c[t][n], low.x, high.x, low.y, high.y, b.x, b.y);
          mma(c[t][n], low.z, high.z, low.w, high.w, b.z, b.w);
        }
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t)
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sums[warp][8 * n + lane % 4 * 2 + i % 2][16 * t + lane / 4 + i / 2 * 8] = c[t][n][i];
  __syncthreads();

  for (int i = threadIdx.x; i < kRows * kOut; i += kWarps * 32) {
    const int row = i / kOut;
    const std::int64_t out = first_out + i % kOut;
    if (row >= p.n_rows || out >= to.n_out) continue;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < kWarps; ++k) sum += sums[k][row][i % kOut];
    const std::int64_t at = row * to.n_out + out;
    if (to.bias) sum += __bfloat162float(static_cast<const __nv_bfloat16*>(to.bias)[out]);
    if (to.plus) sum += __bfloat162float(static_cast<const __nv_bfloat16*>(to.plus)[at]);
    if (p.y_is_f32)
      static_cast<float*>(to.y)[at] = sum;
    else
      static_cast<__nv_bfloat16*>(to.y)[at] = __float2bfloat16_rn(sum);
  }
}

template <int kTiles, int kColumns>
void launch(const ThinLinear& p, Stream stream) {
  constexpr int kOut = 16 * kTiles;
  std::int64_t n_blocks = 0;
  for (int i = 0; i < p.n_outputs; ++i) n_blocks += (p.outputs[i].n_out + kOut - 1) / kOut;
  thin_linear_kernel<kTiles, kColumns>
      <<<static_cast<unsigned>(n_blocks), kWarps * 32, 0, stream>>>(p);
  check_launch("thin product");
}

const void* advance(const void* data, std::int64_t n_bytes) {
  return data ? static_cast<const char*>(data) + n_bytes : nullptr;
}

// The same for rows [first, first + n).
ThinLinear rows_of(ThinLinear p, std::int64_t first, std::int64_t n) {
  p.x = advance(p.x, first * p.n_in * 2);
  for (ThinOutput& to : p.outputs) {
    to.plus = advance(to.plus, first * to.n_out * 2);
    to.y = const_cast<void*>(advance(to.y, first * to.n_out * (p.y_is_f32 ? 4 : 2)));
  }
  p.n_rows = n;
  return p;
}

void check_shape(const ThinLinear& p) {
  bool fits = p.n_in > 0 && p.n_in % 8 == 0 && p.n_rows >= 0 && p.n_outputs >= 1 &&
              p.n_outputs <= kMaxThinOutputs;
  std::string text = "[" + std::to_string(p.n_rows) + ", " + std::to_string(p.n_in) + "] x";
  for (int i = 0; i < p.n_outputs && i < kMaxThinOutputs; ++i) {
    fits = fits && p.outputs[i].n_out > 0;
    text += " [" + std::to_string(p.outputs[i].n_out) + ", " + std::to_string(p.n_in) + "]^T";
  }
  if (!fits) throw BadShape("thin product: " + text + ": the width must be a multiple of 8");
}

}  // namespace

void thin_linear(const ThinLinear& p, Stream stream) {
  check_shape(p);
  for (std::int64_t first = 0; first < p.n_rows; first += kMostRows) {
    const std::int64_t n = p.n_rows - first < kMostRows ? p.n_rows - first : kMostRows;
    const ThinLinear part = rows_of(p, first, n);
    if (n <= 8)
      launch<1, 1>(part, stream);
    else if (n <= 16)
      launch<2, 2>(part, stream);
    else
      launch<2, 4>(part, stream);
  }
}

}  // namespace starattn::kernels
