// SPDX-License-Identifier: Apache-2.0
// What a decoder layer does to its rows between the products and the attention: bandwidth-bound
// kernels on bf16 rows with fp32 arithmetic. Every row is treated by itself, in a fixed order, so
// that its bits never depend on the other rows. All asynchronous on `stream`; all pointers are
// device memory, 16-byte aligned; widths are multiples of 8 unless said otherwise.
#pragma once

#include <cstdint>

#include "launch.h"
#include "peer_exchange.h"

namespace starattn::kernels {

// bf16 [vocab, width], in one piece or in several that may lie on other devices.
inline constexpr int kMostTableParts = 17;
struct EmbeddingTable {
  struct Part {
    const void* rows = nullptr;
    std::int32_t first = 0;  // token of its first row; the others follow until the next part's
  };
  Part parts[kMostTableParts];
  int n_parts = 1;
};

// out[i] = table[tokens[i]], bf16 [n_rows, width].
void embed_rows(const std::int32_t* tokens, const EmbeddingTable& table, std::int64_t n_rows,
                std::int64_t width, void* out, Stream stream);

// y = x / sqrt(mean(x^2) + eps) * weight; x, y bf16 [n_rows, width], weight bf16 [width], which is
// read before the kernel in front has ended. y may be x. NaN where the mean is beyond fp32.
void rms_norm(const void* x, const void* weight, float eps, std::int64_t n_rows, std::int64_t width,
              void* y, Stream stream);

// bf16 [n_rows, n_heads, head_dim]
struct HeadRows {
  void* x = nullptr;
  int n_heads = 0;
};

// Rotates pairs (i, i + rotary/2) of every head's first `rotary` values in place (arXiv 2104.09864,
// half-split order), and those of the values behind them alike, of q and k. cos, sin fp32 [n_rows,
// head_dim / 2], the pairs in this order; head_dim and rotary: multiples of 16. send: where q goes
// as well. exchange: of the rows of q, which are sent, to be brought to its end; for
// takes_exchange().
void rotate_rows(const HeadRows& q, const HeadRows& k, const float* cos, const float* sin,
                 std::int64_t n_rows, int head_dim, int rotary, Stream stream,
                 const PeerSend& send = {}, const PeerRows& exchange = {});
// Whether these may be few enough for that: n_values of q and k in all.
bool takes_exchange(std::int64_t n_values);

// y = silu(gate) * up, bf16 [n].
void swiglu(const void* gate, const void* up, void* y, std::int64_t n, Stream stream);

// x += y, bf16 [n].
void add_rows(void* x, const void* y, std::int64_t n, Stream stream);

// x *= factor, bf16 [n].
void scale_rows(void* x, float factor, std::int64_t n, Stream stream);

// x[i] *= sigmoid(by[i] . gate), the product in fp32; x bf16 [n_rows, width], by bf16 [n_rows,
// by_width], gate bf16 [by_width], which is read before the kernel in front has ended.
void scale_by_gate(void* x, const void* by, const void* gate, std::int64_t n_rows,
                   std::int64_t width, std::int64_t by_width, Stream stream);

// The empty partial: o = 0, m = -inf, l = 0. n_values = rows * heads.
void clear_partial(float* o, float* m, float* l, std::int64_t n_values, int head_dim,
                   Stream stream);

enum class Float { bf16, f16, f32 };

// Conversions of n numbers, any n, any alignment of elements.
void to_bf16(const void* from, Float type, std::int64_t n, void* to, Stream stream);
// FP8 weights (e4m3) with a scale for each block of rows and columns.
struct ScaledMatrix {
  const void* values = nullptr;  // [n_rows, n_cols], any alignment
  std::int64_t n_rows = 0, n_cols = 0;
  const float* scales = nullptr;  // row-major
  std::int64_t block_rows = 0, block_cols = 0;
  std::int64_t first_row = 0;  // in the first row of blocks
};
void f8_to_bf16(const ScaledMatrix& from, void* to, Stream stream);
void to_f32(const void* from_bf16, std::int64_t n, float* to, Stream stream);

// place, one number on the device: becomes the smaller of itself and the place of the first NaN or
// infinity among x, bf16 [n], any n, any alignment of elements. first: the place of x[0].
void find_not_finite(const void* x, std::int64_t n, std::int64_t first, std::int64_t* place,
                     Stream stream);

}  // namespace starattn::kernels
