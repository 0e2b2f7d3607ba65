// SPDX-License-Identifier: Apache-2.0
// Products of many rows with an FP8 matrix, whose rows are rounded to FP8, too (e4m3): phase 1 with
// --activations fp8. Every number of y has the bits that its row of x and its row of w give,
// whatever is beside them.
#pragma once

#include <cstdint>

#include "elementwise.h"
#include "launch.h"

namespace starattn::kernels {

// A row's numbers times its scale, a power of two (f8_exponent() in base/dtype.h).
struct RoundedRows {
  void* values = nullptr;   // e4m3 [n_rows, width]
  float* scales = nullptr;  // [n_rows]
  std::int64_t n_rows = 0, width = 0;
};

// to = x, bf16 [n_rows, width], to the nearest; what is not finite becomes NaN.
void round_rows(const void* x, const RoundedRows& to, Stream stream);

// y = x w^T + bias, or y += with `add`: what 128 columns sum to is added up in fp32.
struct F8Linear {
  RoundedRows x;
  ScaledMatrix w;              // w.n_cols == x.width
  const void* bias = nullptr;  // bf16 [w.n_rows], or null
  void* y = nullptr;           // bf16 [x.n_rows, w.n_rows]
  bool add = false;
};

// Whether the kernel takes this matrix on this device: Hopper alone, and where a row of w has more
// than one scale, blocks of whole 128 rows and columns.
bool takes_f8_linear(const ScaledMatrix& w);
void f8_linear(const F8Linear& product, Stream stream);

}  // namespace starattn::kernels
