// SPDX-License-Identifier: Apache-2.0
// The blocks of scales that products with FP8 matrices take.
#pragma once

#include <cstdint>
#include <string>

#include "launch.h"
#include "thin_linear.h"

namespace starattn::kernels {

// Throws BadShape, which begins with `what`.
inline void check_f8_blocks(const char* what, std::int64_t n_in, std::int64_t block_rows,
                            std::int64_t block_cols) {
  const bool fits = n_in > 0 && n_in % 16 == 0 && block_rows > 0 &&
                    ((block_cols > 0 && block_cols % kThinRun == 0) || block_cols >= n_in);
  if (!fits)
    throw BadShape(std::string(what) +
                   ": the width must be a multiple of 16, and that of a block, "
                   "which has at least one row, of " +
                   std::to_string(kThinRun) + "; got a width of " + std::to_string(n_in) +
                   " and blocks of " + std::to_string(block_rows) + " x " +
                   std::to_string(block_cols));
}

}  // namespace starattn::kernels
