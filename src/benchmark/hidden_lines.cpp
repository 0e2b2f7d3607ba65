// SPDX-License-Identifier: Apache-2.0
#include "benchmark/hidden_lines.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {

std::vector<std::int64_t> random_places(Random random, std::int64_t n_lines, std::int64_t n_items) {
  std::vector<std::int64_t> places;
  for (std::int64_t i = 0; i < n_items; ++i) places.push_back(random.between(0, n_lines));
  std::sort(places.begin(), places.end());
  return places;
}

std::vector<std::int64_t> depth_places(Random random, std::int64_t n_lines, std::int64_t n_items) {
  constexpr std::int64_t kDepths = 40;
  std::vector<std::int64_t> places;
  for (const std::int64_t depth : random.sample(kDepths, n_items))
    places.push_back(n_lines * depth / (kDepths - 1));
  std::sort(places.begin(), places.end());
  return places;
}

std::string hide_lines(const std::vector<std::string>& lines, const std::vector<std::string>& items,
                       const std::vector<std::int64_t>& places, std::string_view separator) {
  STARATTN_CHECK(items.size() == places.size());
  std::string text;
  const auto add = [&](const std::string& line) {
    if (!text.empty()) text += separator;
    text += line;
  };
  std::size_t next = 0;
  for (std::size_t i = 0; i <= lines.size(); ++i) {
    for (; next < items.size() && places[next] == static_cast<std::int64_t>(i); ++next)
      add(items[next]);
    if (i < lines.size()) add(lines[i]);
  }
  STARATTN_CHECK(next == items.size());
  return text;
}

}  // namespace starattn
