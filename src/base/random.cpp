// SPDX-License-Identifier: Apache-2.0
#include "base/random.h"

#include <unordered_set>

#include "base/error.h"

namespace starattn {

std::uint64_t absorb(std::uint64_t key, std::string_view text) {
  key = mix(key ^ text.size());
  for (const char c : text) key = mix(key ^ static_cast<unsigned char>(c));
  return key;
}

// Floyd's sampling: number j of the last k positions, or j itself where the draw was taken.
std::vector<std::int64_t> Random::sample(std::int64_t n, std::int64_t k) {
  STARATTN_CHECK(0 <= k && k <= n);
  std::vector<std::int64_t> chosen;
  std::unordered_set<std::int64_t> taken;
  for (std::int64_t j = n - k; j < n; ++j) {
    const std::int64_t drawn = between(0, j);
    const std::int64_t next = taken.insert(drawn).second ? drawn : j;
    taken.insert(next);
    chosen.push_back(next);
  }
  shuffle(chosen);
  return chosen;
}

}  // namespace starattn
