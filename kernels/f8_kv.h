// SPDX-License-Identifier: Apache-2.0
// Keys or values in FP8 (e4m3): a row is a token's numbers, head by head; behind them, a byte each,
// the exponents of the heads' scales 2^(exponent - 127), and zeros up to a multiple of 16 bytes.
#pragma once

#include <cstdint>

#include "launch.h"

namespace starattn::kernels {

struct F8Rows {
  const void* data = nullptr;  // 16-byte aligned, rows row_bytes apart
  std::int64_t n_rows = 0;
  int n_heads = 0;
  int head_dim = 0;  // 64 or 128

  std::int64_t width() const { return static_cast<std::int64_t>(n_heads) * head_dim; }
  std::int64_t row_bytes() const { return (width() + n_heads + 15) / 16 * 16; }
};

// to = x, bf16 [n_rows, n_heads, head_dim], to the nearest; the scales are the least by which each
// head's largest finite number becomes at most 448. What is not finite becomes NaN.
void narrow_rows(const void* x, const F8Rows& to, Stream stream);
// to bf16 [n_rows, n_heads, head_dim] = the rows, exactly (a NaN as some number).
void widen_rows(const F8Rows& from, void* to, Stream stream);

// The exponents of as many keys and values once more: a head's lie side by side, [2, n_heads,
// exponents_stride()] bytes with zeros behind the last, where in rows each is in a sector of its
// own.
constexpr std::int64_t exponents_stride(std::int64_t n_rows) {
  return (n_rows + 31) / 32 * 32;
}
void lay_out_exponents(const F8Rows& k, const F8Rows& v, void* to, Stream stream);

}  // namespace starattn::kernels
