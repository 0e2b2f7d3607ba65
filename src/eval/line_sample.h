// SPDX-License-Identifier: Apache-2.0
// Which of a file's lines to look at, without knowing how many it has: each line's index draws a
// number, and those with the lowest are the sample. Memory is bounded by the sample; every set of
// that many lines is equally likely; a larger sample holds the smaller one.
#pragma once

#include <cstdint>
#include <queue>
#include <utility>
#include <vector>

namespace starattn {

class LineSample {
 public:
  LineSample(std::uint64_t seed, std::int64_t n_wanted);  // n_wanted >= 1

  void see(std::int64_t index);
  std::vector<std::int64_t> chosen() const;  // ascending; all that were seen if they are fewer

 private:
  std::uint64_t key_;
  std::size_t n_wanted_;
  std::priority_queue<std::pair<std::uint64_t, std::int64_t>> lowest_;  // draw, index
};

}  // namespace starattn
