// SPDX-License-Identifier: Apache-2.0
#include "calibrate/timer.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/clock.h"

namespace starattn {
namespace {

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

double CalibrationTimer::operator()(const Operation& operation, std::size_t n_bundles) const {
  const bool on_host = backend_.is_host_memory();
  const double bundle = on_host ? 0.01 : n_bundles < kBundles ? 0.02 : 0.05;
  std::int64_t next = 0;
  const auto timed = [&](std::int64_t n) {
    backend_.synchronize();
    const Stopwatch clock;
    for (std::int64_t i = 0; i < n; ++i) operation(next++);
    backend_.synchronize();
    return clock.seconds() / static_cast<double>(n);
  };
  const double first = timed(1);
  // What takes long needs neither a warm-up nor a third time.
  std::vector<double> bundles;
  std::int64_t n = 1;
  if (on_host && first > 0.25) {
    bundles.push_back(first);
  } else {
    n = static_cast<std::int64_t>(std::clamp(bundle / timed(1), 1.0, 1e4));
  }
  world_.barrier();
  const Stopwatch clock;
  while (bundles.size() < n_bundles && (bundles.size() < 2 || clock.seconds() < 1))
    bundles.push_back(timed(n));
  const double mine = on_host ? *std::ranges::min_element(bundles) : mean(bundles);
  return mean(world_.allgather(mine));
}

}  // namespace starattn
