// SPDX-License-Identifier: Apache-2.0
#include "star/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/first_highest.h"
#include "base/random.h"

namespace starattn {
namespace {

bool ranks_before(std::span<const float> logits, Token a, Token b) {
  const float left = logits[static_cast<std::size_t>(a)];
  const float right = logits[static_cast<std::size_t>(b)];
  return left != right ? left > right : a < b;
}

}  // namespace

std::uint64_t sampling_key(std::uint64_t seed, std::string_view document_id,
                           std::string_view query_id) {
  return absorb(absorb(mix(seed), document_id), query_id);
}

std::vector<std::pair<Token, float>> top_logits(std::span<const float> logits, std::int64_t k) {
  std::vector<Token> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto n =
      std::min<std::size_t>(static_cast<std::size_t>(std::max<std::int64_t>(k, 0)), order.size());
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(n);
  std::partial_sort(order.begin(), middle, order.end(),
                    [&](Token a, Token b) { return ranks_before(logits, a, b); });
  std::vector<std::pair<Token, float>> top;
  for (auto it = order.begin(); it != middle; ++it)
    top.emplace_back(*it, logits[static_cast<std::size_t>(*it)]);
  return top;
}

Token sample(std::span<const float> logits, const Sampling& sampling, std::uint64_t key,
             std::uint64_t step) {
  if (sampling.temperature <= 0) return first_highest(logits);
  std::vector<Token> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](Token a, Token b) { return ranks_before(logits, a, b); });

  const double highest = logits[static_cast<std::size_t>(order.front())];
  std::vector<double> weights;
  for (const Token token : order) {
    weights.push_back(
        std::exp((logits[static_cast<std::size_t>(token)] - highest) / sampling.temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t n_kept = 0;
  double kept = 0;
  while (n_kept < weights.size() && (n_kept == 0 || kept < sampling.top_p * total))
    kept += weights[n_kept++];

  double rest = random_unit(key, step) * kept;
  for (std::size_t i = 0; i < n_kept; ++i) {
    rest -= weights[i];
    if (rest < 0) return order[i];
  }
  return order[n_kept - 1];
}

}  // namespace starattn
