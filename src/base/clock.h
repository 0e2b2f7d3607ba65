// SPDX-License-Identifier: Apache-2.0
// Seconds on a clock that never goes back.
#pragma once

#include <chrono>

namespace starattn {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace starattn
