// SPDX-License-Identifier: Apache-2.0
// plan --history: what finished runs took beside what the machine file makes of them. Their mean
// ratio scales what is planned.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "simulate/schedule.h"

namespace starattn {

struct PastRun {
  std::string what;                   // "star:b=8k, 65,536 tokens, 2 ranks"
  bool is_step = false;               // of phase 2: the mean of a step
  double measured = 0, modelled = 0;  // seconds

  double ratio() const { return measured / modelled; }
};

class History {
 public:
  // Files that `bench --json`, `run --output` and `--progress-file` have written. Answers do not
  // say on how many ranks they were made, nor progress files which setting they had: both take the
  // plan's. Throws Error(bad_data | no_input) naming file and line, and where one is of another
  // model or tells of no finished run.
  static History read(const std::vector<std::string>& files, const ModelConfig& config,
                      const Machine& machine, const Cluster& cluster, const PlanRequest& request,
                      int n_ranks);

  bool is_empty() const { return runs_.empty(); }
  // The geometric means of the ratios; 1 where nothing was measured.
  Experience experience() const;
  std::string to_text() const;  // a table, and what follows from it
  Json to_json() const;

 private:
  std::vector<PastRun> runs_;
};

}  // namespace starattn
