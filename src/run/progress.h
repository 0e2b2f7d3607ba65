// SPDX-License-Identifier: Apache-2.0
// Where phase 1 stands: one line every few seconds at first, every minute in a long run, from rank
// 0, in the same words for a person and for a log file.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"

namespace starattn {

class Progress {
 public:
  // A quiet one says nothing.
  explicit Progress(bool quiet) : quiet_(quiet) {}

  void start(std::string what, std::int64_t n_tokens, std::int64_t n_steps);
  void step();  // one of n_steps is done

  static constexpr double kSecondsBetween = 5;

 private:
  bool quiet_;
  std::string what_;
  std::int64_t n_tokens_ = 0;
  std::int64_t n_steps_ = 0;
  std::int64_t n_done_ = 0;
  double last_said_ = 0;
  Stopwatch clock_;
};

}  // namespace starattn
