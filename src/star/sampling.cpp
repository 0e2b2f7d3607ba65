// SPDX-License-Identifier: Apache-2.0
#include "star/sampling.h"

#include <algorithm>
#include <numeric>

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

Draw draw_of(const Sampling& sampling, std::uint64_t key, std::uint64_t step) {
  return {sampling.temperature, sampling.top_p, random_unit(key, step)};
}

}  // namespace starattn
