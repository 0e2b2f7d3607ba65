// SPDX-License-Identifier: Apache-2.0
#include "star/auto_setting.h"

#include <algorithm>

namespace starattn {

std::int64_t auto_block_size(std::int64_t n_context) {
  constexpr std::int64_t kGrain = 64;
  const std::int64_t quarter = (n_context + 4 * kGrain - 1) / (4 * kGrain) * kGrain;
  return std::clamp<std::int64_t>(quarter, 512, 32768);
}

TokenShare auto_recall() {
  return {.divisor = 2};
}

std::int64_t auto_anchor(std::int64_t block_size, bool recalls) {
  constexpr std::int64_t kFewest = 256;
  return recalls ? std::min(block_size, std::max(kFewest, (block_size + 15) / 16)) : block_size;
}

std::int64_t auto_recall_rows(std::int64_t block_size) {
  constexpr std::int64_t kFewest = 64;
  return std::min(block_size, std::max(kFewest, (block_size + 15) / 16));
}

}  // namespace starattn
