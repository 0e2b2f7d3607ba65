// SPDX-License-Identifier: Apache-2.0
#include "base/next_token.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace starattn {
namespace {

// kNoToken where one is not finite.
Token first_highest(std::span<const float> values) {
  STARATTN_CHECK(!values.empty());
  // Eight running maxima, which compilers turn into vectors; then the first place of the largest.
  constexpr std::size_t kLanes = 8;
  constexpr float kHighest = std::numeric_limits<float>::max();
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, values[0]);
  bool are_finite = true;
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      const float value = values[i + j];
      are_finite &= std::abs(value) <= kHighest;
      lanes[j] = value > lanes[j] ? value : lanes[j];
    }
  }
  float highest = *std::max_element(lanes, lanes + kLanes);
  for (; i < values.size(); ++i) {
    are_finite &= std::abs(values[i]) <= kHighest;
    highest = std::max(highest, values[i]);
  }
  if (!are_finite) return kNoToken;
  const auto place = std::find(values.begin(), values.end(), highest);
  return static_cast<Token>(place - values.begin());
}

bool is_allowed(const Draw& draw, std::size_t token) {
  return draw.allowed.empty() || (draw.allowed[token / 32] >> (token % 32) & 1) != 0;
}

// The first highest of those that may come.
Token first_highest_allowed(std::span<const float> logits, const Draw& draw) {
  Token best = kNoToken;
  for (std::size_t token = 0; token < logits.size(); ++token) {
    if (is_allowed(draw, token) &&
        (best == kNoToken || logits[token] > logits[static_cast<std::size_t>(best)]))
      best = static_cast<Token>(token);
  }
  return best;
}

// The heaviest tokens that together weigh at least `enough`, in the order of their ids.
std::vector<std::int32_t> nucleus(std::span<const double> weights, double enough) {
  std::vector<std::int32_t> heap(weights.size());
  std::iota(heap.begin(), heap.end(), 0);
  const auto weight = [&](std::int32_t token) { return weights[static_cast<std::size_t>(token)]; };
  const auto comes_later = [&](std::int32_t a, std::int32_t b) {
    return weight(a) != weight(b) ? weight(a) < weight(b) : a > b;
  };
  std::make_heap(heap.begin(), heap.end(), comes_later);
  auto kept = heap.end();  // behind the heap, the last taken first
  double sum = 0;
  do {
    std::pop_heap(heap.begin(), kept, comes_later);
    sum += weight(*--kept);
  } while (sum < enough && kept != heap.begin());
  heap.erase(heap.begin(), kept);
  std::sort(heap.begin(), heap.end());
  return heap;
}

}  // namespace

Token next_token(std::span<const float> logits, const Draw& draw) {
  STARATTN_CHECK(draw.allowed.empty() || draw.allowed.size() * 32 >= logits.size());
  Token best = first_highest(logits);
  if (best != kNoToken && !draw.allowed.empty()) best = first_highest_allowed(logits, draw);
  if (draw.is_greedy() || best == kNoToken) return best;
  const double highest = logits[static_cast<std::size_t>(best)];
  std::vector<double> weights;
  weights.reserve(logits.size());
  for (std::size_t token = 0; token < logits.size(); ++token) {
    const bool may_come = is_allowed(draw, token);
    weights.push_back(may_come ? std::exp((logits[token] - highest) / draw.temperature) : 0);
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);

  std::vector<std::int32_t> kept;
  if (draw.top_p < 1) {
    kept = nucleus(weights, draw.top_p * total);
  } else {
    kept.resize(weights.size());
    std::iota(kept.begin(), kept.end(), 0);
  }
  const auto weight = [&](std::int32_t token) { return weights[static_cast<std::size_t>(token)]; };
  double rest = 0;
  for (const std::int32_t token : kept) rest += weight(token);
  rest *= draw.unit;
  for (const std::int32_t token : kept) {
    rest -= weight(token);
    if (rest < 0) return token;
  }
  return best;  // a sum was rounded up
}

Highest highest_of(std::span<const float> logits, Token first,
                   std::span<const std::uint32_t> allowed) {
  Highest best;
  if (logits.empty()) return best;
  const Draw among{.allowed = allowed};
  if (allowed.empty()) {
    const Token at = first_highest(logits);
    if (at != kNoToken) return {logits[static_cast<std::size_t>(at)], first + at};
  }
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const Token token = first + static_cast<Token>(i);
    if (!std::isfinite(logits[i])) return {std::numeric_limits<float>::quiet_NaN(), kNoToken};
    if (is_allowed(among, static_cast<std::size_t>(token)) &&
        (best.token == kNoToken || logits[i] > best.logit))
      best = {logits[i], token};
  }
  return best;
}

Token best_of(std::span<const Highest> parts) {
  Highest best;
  for (const Highest& part : parts) {
    if (std::isnan(part.logit)) return kNoToken;
    if (part.token == kNoToken) continue;
    const bool is_better = best.token == kNoToken || part.logit > best.logit ||
                           (part.logit == best.logit && part.token < best.token);
    if (is_better) best = part;
  }
  return best.token;
}

}  // namespace starattn
