// SPDX-License-Identifier: Apache-2.0
#include "run/watchdog.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "base/error.h"
#include "base/log.h"
#include "trace/range.h"

namespace starattn {
namespace {

// Seconds are counted, not read off a clock: while a whole job is suspended none go by.
void watch(const std::stop_token& end, double minutes, int rank) {
  // All ranks come to wait: mostly the lowest speaks first, and its end is that of the others.
  const double limit_seconds = 60 * minutes + 5 * std::min(rank, 60);
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  std::uint64_t n_moves = 0;
  for (int still = 0; still < limit_seconds; ++still) {
    wake.wait_for(lock, end, std::chrono::seconds(1), [] { return false; });
    if (end.stop_requested()) return;
    const std::uint64_t n_now = trace::n_moves();
    if (n_now != n_moves) still = 0;
    n_moves = n_now;
  }
  log::error(
      "nothing has moved for {:g} minute(s) (--timeout), {}: another rank is stopped or stuck, or "
      "a "
      "file system hangs. All ranks end here; finished answers and blocks are saved",
      minutes, trace::where_now());
  std::_Exit(static_cast<int>(Exit::unfit));
}

}  // namespace

Watchdog::Watchdog(double minutes, int rank) {
  if (minutes <= 0) return;
  thread_ = std::jthread([=](const std::stop_token& end) { watch(end, minutes, rank); });
}

}  // namespace starattn
