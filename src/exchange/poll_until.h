// SPDX-License-Identifier: Apache-2.0
// Waiting for what arrives only while this rank keeps things moving.
#pragma once

#include <chrono>
#include <thread>

#include "trace/range.h"

namespace starattn {

// Calls poll until the condition holds. The wait, if there is one, is a range of that name.
template <typename Poll, typename Condition>
void poll_until(const char* range_name, const Poll& poll, const Condition& is_true) {
  constexpr int kLooksBeforeSleeping = 1000;  // ranks may share cores: Requests::wait
  poll();
  if (is_true()) return;
  const trace::Range range(range_name, trace::Lane::messages);
  for (int look = 0; !is_true(); ++look) {
    poll();
    if (look > kLooksBeforeSleeping) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

}  // namespace starattn
