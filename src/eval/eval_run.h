// SPDX-License-Identifier: Apache-2.0
// eval's main job: tasks x lengths x settings in one launch. Each group of ranks asks rank 0 for a
// sample, makes its document, and runs it through both phases once for each setting; the trials go
// to rank 0, which writes each down as it comes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "benchmark/benchmark_options.h"
#include "run/options.h"

namespace starattn {

struct EvalRunOptions {
  Options run;  // model, output, machine
  BenchmarkOptions benchmark;
  std::vector<std::string> settings;
  std::int64_t count = 100;
  double until = 0;       // half-width of a score's interval at which sampling ends; 0: never
  double find_limit = 0;  // lengths double while a score is at least this; 0: as given
  std::string html;
  std::string baseline;
};

// Collective over the job.
Exit run_eval(const EvalRunOptions& options);

}  // namespace starattn
