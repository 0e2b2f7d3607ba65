// SPDX-License-Identifier: Apache-2.0
// The scales of an FP8 matrix as thin products need them: of a row, by runs of columns.
#pragma once

#include <cstdint>

#include "thin_linear.h"

namespace starattn::kernels {

struct RunScales {
  const float* scales;
  unsigned block_rows, n_blocks;  // n_blocks: of a row
  float blocks_per_run;

  RunScales() = default;
  __device__ __forceinline__ RunScales(const ThinOutput& of, std::int64_t n_in)
      : RunScales(of.scales, of.block_rows, of.block_cols, n_in) {}
  __device__ __forceinline__ RunScales(const float* scales, std::int64_t rows_of_block,
                                       std::int64_t columns_of_block, std::int64_t n_in)
      : scales(scales) {
    const auto columns = static_cast<unsigned>(columns_of_block < n_in ? columns_of_block : n_in);
    constexpr std::int64_t kMost = 1 << 30;
    block_rows = static_cast<unsigned>(rows_of_block < kMost ? rows_of_block : kMost);
    n_blocks = (static_cast<unsigned>(n_in) + columns - 1) / columns;
    blocks_per_run = __fdividef(1.f, static_cast<float>((columns + kThinRun - 1) / kThinRun));
  }
  // Where a row, counted from the first that has scales, has its own.
  __device__ __forceinline__ int first_of(std::int64_t row) const {
    return static_cast<int>(static_cast<unsigned>(row) / block_rows * n_blocks);
  }
  __device__ __forceinline__ float of(int first, int run) const {
    // Rounded down, exactly: run + 0.5 is never close to a multiple.
    return __ldg(scales + first + static_cast<int>((run + 0.5f) * blocks_per_run));
  }
};

}  // namespace starattn::kernels
