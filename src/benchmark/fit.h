// SPDX-License-Identifier: Apache-2.0
// How many units fill a number of tokens: found by measuring texts, as only the tokenizer knows.
#pragma once

#include <cstdint>

#include "base/function_ref.h"
#include "benchmark/sample.h"

namespace starattn {

// The tokens of everything that counts: context, question, answer.
using CountTokens = FunctionRef<std::int64_t(const Sample&)>;

// Where a search begins.
struct FitGuess {
  std::int64_t n_units = 0;
  double tokens_per_unit = 1;
};

struct Fitted {
  Sample sample;
  std::int64_t n_units = 0;
  std::int64_t n_tokens = 0;  // <= the budget
};

// Learns both numbers of a guess on one sample. Throws Error(usage) when not even min_units fit.
FitGuess calibrate(const SampleMaker& maker, const Random& random, std::int64_t budget,
                   CountTokens count);

// A sample of at most `budget` tokens, and short of it by at most about one unit and 0.05 %.
// The result is a function of all arguments, nothing else. Throws as above.
Fitted fit(const SampleMaker& maker, const Random& random, std::int64_t index, std::int64_t budget,
           const FitGuess& guess, CountTokens count);

}  // namespace starattn
