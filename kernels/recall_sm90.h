// SPDX-License-Identifier: Apache-2.0
// Recall's two products on Hopper; see recall.h. Only where takes_hopper_kernels().
#pragma once

#include "recall.h"

namespace starattn::kernels {

void log_sum_exp_sm90(const AskingRows& asking, const KvSegment& first, const KvSegment& second,
                      float* z, Stream stream);
// own [n_heads, padded_rows(n_rows)]: -z log2(e), -inf behind the last row.
void score_keys_sm90(const AskingRows& asking, const float* own, const KvSegment& keys,
                     float* scores, Stream stream);

inline std::int64_t padded_rows(std::int64_t n_rows) {
  return (n_rows + 127) / 128 * 128;
}

}  // namespace starattn::kernels
