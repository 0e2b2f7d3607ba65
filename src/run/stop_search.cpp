// SPDX-License-Identifier: Apache-2.0
#include "run/stop_search.h"

#include <algorithm>

namespace starattn {

std::size_t first_stop(std::span<const std::string> stops, std::string_view text) {
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops) {
    if (!stop.empty()) first = std::min(first, text.find(stop));
  }
  return first;
}

StopSearch::StopSearch(const Tokenizer& tokenizer, std::span<const std::string> stops)
    : stops_(stops), stream_(tokenizer) {
  for (const std::string& stop : stops) longest_ = std::max(longest_, stop.size());
}

bool StopSearch::found_after(Token next) {
  if (longest_ == 0) return false;
  end_ += stream_.push(next);
  if (first_stop(stops_, end_) != std::string::npos) return true;
  if (end_.size() >= longest_) end_.erase(0, end_.size() - (longest_ - 1));
  return false;
}

}  // namespace starattn
