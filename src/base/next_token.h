// SPDX-License-Identifier: Apache-2.0
// From one row of logits to the next token: greedy, or drawn from the nucleus (arXiv 1904.09751,
// section 3.1).
#pragma once

#include <cstdint>
#include <limits>
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

  bool is_greedy() const { return temperature <= 0; }
};

// Greedy: the highest logit, the first of equals. Otherwise a token weighs exp(logit /
// temperature); the heaviest are kept, the first of equals before the others, and the draw falls on
// one of these in the order of their ids. Tokens that may not come weigh nothing. kNoToken where a
// logit is NaN or infinite, and where no token may come.
Token next_token(std::span<const float> logits, const Draw& draw);

// The highest logit of some of the tokens, the first of equals. None may come: kNoToken, and -inf;
// a logit is NaN or infinite: kNoToken, and NaN.
struct Highest {
  float logit = -std::numeric_limits<float>::infinity();
  Token token = kNoToken;
};
// Of tokens first, first + 1, ...; any number. allowed: of all tokens, as a Draw has them.
Highest highest_of(std::span<const float> logits, Token first,
                   std::span<const std::uint32_t> allowed = {});
// Of all tokens, each in one of the parts: what next_token() finds without drawing.
Token best_of(std::span<const Highest> parts);

}  // namespace starattn
