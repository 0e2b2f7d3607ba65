// SPDX-License-Identifier: Apache-2.0
#include "benchmark/fit.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr double kUnusedShare = 1.0 / 2048;
constexpr int kSecantSteps = 6;  // then halving
constexpr int kMaxSteps = 40;

Fitted measured(const SampleMaker& maker, const Random& random, std::int64_t index,
                std::int64_t n_units, CountTokens count) {
  Fitted fitted{maker.make(random, index, n_units), n_units, 0};
  fitted.n_tokens = count(fitted.sample);
  return fitted;
}

[[noreturn]] void fail_too_short(std::int64_t needed, std::int64_t budget) {
  fail(Exit::usage, "--length: expected at least {} tokens for this task and tokenizer, got {}",
       with_commas(needed), with_commas(budget));
}

}  // namespace

FitGuess calibrate(const SampleMaker& maker, const Random& random, std::int64_t budget,
                   CountTokens count) {
  constexpr std::int64_t kStep = 16;
  const Fitted least = measured(maker, random, 0, maker.min_units, count);
  if (least.n_tokens > budget) fail_too_short(least.n_tokens, budget);
  const Fitted more = measured(maker, random, 0, maker.min_units + kStep, count);
  const double first_slope = std::max(
      0.1, static_cast<double>(more.n_tokens - least.n_tokens) / static_cast<double>(kStep));
  const FitGuess guess{
      maker.min_units +
          static_cast<std::int64_t>(static_cast<double>(budget - least.n_tokens) / first_slope),
      first_slope};
  const Fitted full = fit(maker, random, 0, budget, guess, count);
  if (full.n_units == least.n_units) return {full.n_units, first_slope};
  return {full.n_units, std::max(0.1, static_cast<double>(full.n_tokens - least.n_tokens) /
                                          static_cast<double>(full.n_units - least.n_units))};
}

Fitted fit(const SampleMaker& maker, const Random& random, std::int64_t index, std::int64_t budget,
           const FitGuess& guess, CountTokens count) {
  std::optional<Fitted> best;         // the largest that fits
  std::optional<std::int64_t> above;  // the least number of units that does not
  std::int64_t next = std::max(guess.n_units, maker.min_units);
  for (int step = 0; step < kMaxSteps; ++step) {
    Fitted now = measured(maker, random, index, next, count);
    const auto unused = static_cast<double>(budget - now.n_tokens);
    if (unused >= 0) {
      best = std::move(now);
      if (unused <= guess.tokens_per_unit + static_cast<double>(budget) * kUnusedShare) break;
    } else {
      if (next == maker.min_units) fail_too_short(now.n_tokens, budget);
      above = next;
    }
    if (best && above && *above - best->n_units <= 1) break;
    next += static_cast<std::int64_t>(std::floor(unused / guess.tokens_per_unit));
    const std::int64_t low = best ? best->n_units + 1 : maker.min_units;
    if (above && step >= kSecantSteps) next = (low + *above) / 2;
    next = std::max(next, low);
    if (above) next = std::min(next, *above - 1);
  }
  if (!best) best = measured(maker, random, index, maker.min_units, count);
  if (best->n_tokens > budget) fail_too_short(best->n_tokens, budget);
  return *std::move(best);
}

}  // namespace starattn
