// SPDX-License-Identifier: Apache-2.0
// Tensor maps for the copy engine: three dimensions, zeros outside.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace starattn::kernels {

struct TensorSize {
  std::int64_t columns, heads, rows;
};
struct TensorBox {
  int columns, heads, rows;
};

// data: bf16 [rows, heads, columns], rows row_stride elements apart, heads contiguous. In shared
// memory boxes are in the 128-byte swizzle.
CUtensorMap tensor_map(const void* data, const TensorSize& size, std::int64_t row_stride,
                       const TensorBox& box);

// data: rows of bytes, row_stride of them apart, a multiple of 16, of which a box takes
// box_columns, in the swizzle of as many bytes: 64 or 128. The middle coordinate is 0.
CUtensorMap byte_map(const void* data, std::int64_t columns, std::int64_t rows,
                     std::int64_t row_stride, int box_columns, int box_rows);

}  // namespace starattn::kernels
