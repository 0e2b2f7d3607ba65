// SPDX-License-Identifier: Apache-2.0
// From one row of logits to the next token: greedy, or drawn from the nucleus (arXiv 1904.09751,
// section 3.1).
#pragma once

#include <cstdint>
#include <span>

namespace starattn {

using Token = std::int32_t;  // an id of the vocabulary
constexpr Token kNoToken = -1;

struct Draw {
  double temperature = 0;  // 0: greedy
  double top_p = 1;        // keep the smallest set of tokens with at least this probability
  double unit = 0;         // the random number, in [0, 1)
  // Tokens that may come, bit token % 32 of word token / 32; empty: all may.
  std::span<const std::uint32_t> allowed = {};
};

// Greedy: the highest logit, the first of equals. Otherwise a token weighs exp(logit /
// temperature); the heaviest are kept, the first of equals before the others, and the draw falls on
// one of these in the order of their ids. Tokens that may not come weigh nothing. kNoToken where a
// logit is NaN or infinite, and where no token may come.
Token next_token(std::span<const float> logits, const Draw& draw);

}  // namespace starattn
