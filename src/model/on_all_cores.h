// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace starattn {

// Calls work(first, end) for pieces of [0, n), each of them n_values values, on all cores.
template <typename Work>
void on_all_cores(std::uint64_t n, std::uint64_t n_values, const Work& work) {
  constexpr std::uint64_t kLeast = 1 << 17;  // values for which a thread is worth starting
  const std::uint64_t n_threads = std::clamp<std::uint64_t>(
      n * n_values / kLeast, 1, std::max(1U, std::thread::hardware_concurrency()));
  const std::uint64_t piece = (n + n_threads - 1) / n_threads;
  std::vector<std::jthread> threads;
  for (std::uint64_t first = piece; first < n; first += piece)
    threads.emplace_back([&work, first, end = std::min(n, first + piece)] { work(first, end); });
  work(0, std::min(n, piece));
}

}  // namespace starattn
