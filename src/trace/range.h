// SPDX-License-Identifier: Apache-2.0
// Named spans of time on this rank's main thread. One range feeds the phase table (seconds and
// count by name) and, when a trace is asked for, the trace file. docs/metrics.md defines every
// name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace starattn::trace {

// Time from construction to destruction under `name` (a string literal).
class Range {
 public:
  explicit Range(const char* name);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  const char* name_;
  double start_;
  const char* outer_;  // the range around this one
};

// What another thread may ask about the main one: where it is, "in 'phase 1'" or "after 'phase 1'",
// and how often a range was opened or closed.
std::string where_now();
std::uint64_t n_moves();

void count_bytes(const char* name, std::uint64_t n_bytes);  // bytes moved under `name`

struct Total {
  std::string name;
  double seconds = 0;
  std::uint64_t n_calls = 0;
  std::uint64_t n_bytes = 0;
};
std::vector<Total> totals();  // in order of first use
void reset();

void start_trace();  // from now, time 0, keep every range; call it outside of any
// Chrome trace events ("X", microseconds), one JSON object and a comma a line; `rank` becomes the
// process id.
std::string trace_events(int rank);

std::uint64_t peak_memory_bytes();  // resident set of this process, at its highest

}  // namespace starattn::trace
