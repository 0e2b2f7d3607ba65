// SPDX-License-Identifier: Apache-2.0
// Named spans of time on this rank's main thread that are always measured: the phases. One range
// feeds the phase table (seconds and count by name), the watchdog, and whoever records spans
// (trace/span.h). docs/metrics.md defines every name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trace/span.h"

namespace starattn::trace {

// Time from construction to destruction under `name` (a string literal), at this place.
class Range {
 public:
  explicit Range(const char* name, Lane lane = Lane::host, const Place& place = {});
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  const char* name_;
  Lane lane_;
  At at_;
  double start_;
  const char* outer_;  // the range around this one
};

// What another thread may ask about the main one: where it is, "in 'phase 1'" or "after 'phase 1'",
// and how often a range was opened or closed.
std::string where_now();
std::uint64_t n_moves();

// Bytes moved under `name`: of a message, or of a file.
void count_bytes(const char* name, std::uint64_t n_bytes, Lane lane = Lane::messages);

struct Total {
  std::string name;
  double seconds = 0;
  std::uint64_t n_calls = 0;
  std::uint64_t n_bytes = 0;
};
std::vector<Total> totals();  // in order of first use
void reset();                 // these, and what a profile has counted

std::uint64_t peak_memory_bytes();  // resident set of this process, at its highest

}  // namespace starattn::trace
