// SPDX-License-Identifier: Apache-2.0
#include "run/stop_search.h"

#include <algorithm>

#include "run/thinking.h"

namespace starattn {

std::size_t first_stop(std::span<const std::string> stops, std::string_view text) {
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops) {
    if (!stop.empty()) first = std::min(first, text.find(stop));
  }
  return first;
}

StopSearch::StopSearch(const Tokenizer& tokenizer, std::span<const std::string> stops,
                       Thinking thinking)
    : tokenizer_(tokenizer), stops_(stops), thinking_(thinking), stream_(tokenizer) {
  for (const std::string& stop : stops) longest_ = std::max(longest_, stop.size());
}

bool StopSearch::found_after(Token next) {
  if (longest_ == 0) return false;
  const std::string text = stream_.push(next);
  end_ += text.empty() && thinking_ != Thinking::none ? tag_of(tokenizer_, next) : text;
  if (!has_thought()) return false;
  if (first_stop(stops_, end_) != std::string::npos) return true;
  if (end_.size() >= longest_) end_.erase(0, end_.size() - (longest_ - 1));
  return false;
}

// Once it has, the end is the answer's.
bool StopSearch::has_thought() {
  if (thinking_ == Thinking::perhaps) {
    const std::string_view begin =
        std::string_view(end_).substr(std::min(end_.find_first_not_of(" \t\r\n"), end_.size()));
    if (begin.size() < kThinkBegin.size() && kThinkBegin.starts_with(begin)) return false;
    thinking_ = begin.starts_with(kThinkBegin) ? Thinking::open : Thinking::none;
  }
  if (thinking_ == Thinking::none) return true;
  const std::size_t tag = end_.find(kThinkEnd);
  if (tag == std::string::npos) {
    if (end_.size() >= kThinkEnd.size()) end_.erase(0, end_.size() - (kThinkEnd.size() - 1));
    return false;
  }
  end_.erase(0, tag + kThinkEnd.size());
  thinking_ = Thinking::none;
  return true;
}

}  // namespace starattn
