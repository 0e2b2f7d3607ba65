// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace starattn {

// Calls work(first, end) for ranges that make up [0, n), whose members have n_values values, on all
// cores.
template <typename Work>
void on_all_cores(std::uint64_t n, std::uint64_t n_values, const Work& work) {
  constexpr std::uint64_t kLeast = 1 << 17;  // values for which a thread is worth starting
  const std::uint64_t n_threads = std::clamp<std::uint64_t>(
      n * n_values / kLeast, 1, std::max(1U, std::thread::hardware_concurrency()));
  const std::uint64_t n_a_thread = (n + n_threads - 1) / n_threads;
  std::vector<std::jthread> threads;
  for (std::uint64_t first = n_a_thread; first < n; first += n_a_thread)
    threads.emplace_back(
        [&work, first, end = std::min(n, first + n_a_thread)] { work(first, end); });
  work(0, std::min(n, n_a_thread));
}

}  // namespace starattn
