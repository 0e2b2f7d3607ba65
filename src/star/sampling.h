// SPDX-License-Identifier: Apache-2.0
// How a query's tokens are drawn. Greedy unless a temperature is set; random numbers come from a
// counter-based generator keyed by (seed, document id, query id), so they depend on nothing else.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/next_token.h"

namespace starattn {

struct Sampling {
  double temperature = 0;  // 0 = greedy
  double top_p = 1;        // keep the smallest set of tokens with at least this probability
};

// Key of a query's random draws.
std::uint64_t sampling_key(std::uint64_t seed, std::string_view document_id,
                           std::string_view query_id);

// Draw number `step` of the query `key`.
Draw draw_of(const Sampling& sampling, std::uint64_t key, std::uint64_t step);

// The k highest logits, descending, ties by lower id.
std::vector<std::pair<Token, float>> top_logits(std::span<const float> logits, std::int64_t k);

}  // namespace starattn
