// SPDX-License-Identifier: Apache-2.0
// Thin products of more than a few rows on Hopper; see thin_linear.h. The bits are the same.
#pragma once

#include "thin_linear.h"

namespace starattn::kernels {

inline constexpr std::int64_t kMostThinRowsSm90 = 64;  // of x in one launch

// Of n_rows of its rows.
bool takes_thin_sm90(const ThinLinear& product, std::int64_t n_rows);
void thin_linear_sm90(const ThinLinear& product, Stream stream);

}  // namespace starattn::kernels
