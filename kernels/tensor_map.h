// SPDX-License-Identifier: Apache-2.0
// Tensor maps for the copy engine: bf16, three dimensions, 128-byte swizzle, zeros outside.
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

// data: [rows, heads, columns], rows row_stride elements apart, heads contiguous.
CUtensorMap tensor_map(const void* data, const TensorSize& size, std::int64_t row_stride,
                       const TensorBox& box);

}  // namespace starattn::kernels
