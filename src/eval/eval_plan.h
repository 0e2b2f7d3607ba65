// SPDX-License-Identifier: Apache-2.0
// Which samples an evaluation takes next, given what it has found so far. The answer does not
// depend on how many are taken at a time, so an evaluation on any number of ranks, or begun again,
// takes the same ones.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "benchmark/task.h"
#include "eval/comparison.h"

namespace starattn {

struct EvalRules {
  std::vector<const TaskInfo*> tasks;
  std::vector<std::int64_t> lengths;  // the first only, with find_limit
  std::vector<std::string> settings;
  std::int64_t count = 100;
  double until = 0;
  double find_limit = 0;
  std::int64_t max_length = 0;  // of find_limit: the model's positions
};

// Samples [first, first + n) of one task and length, in these settings.
struct Round {
  const TaskInfo* task = nullptr;
  std::int64_t length = 0;
  std::int64_t first = 0;
  std::int64_t n = 0;
  std::vector<std::string> settings;
};

// Where a setting's score stands when the lengths are grown.
struct Limit {
  std::string task;
  std::string setting;
  std::int64_t holds = 0;  // longest length at which the score is high enough; 0: none
  std::int64_t fails = 0;  // the next, at which it is not; 0: not met
};

class EvalPlan {
 public:
  explicit EvalPlan(EvalRules rules);

  // At most n_most samples. found: all trials of earlier rounds. None when it is complete.
  std::optional<Round> next(std::int64_t n_most, const Comparison& found);
  const std::vector<Limit>& limits() const { return limits_; }  // of find_limit

 private:
  // Sampling ends early only behind a whole number of these.
  static constexpr std::int64_t kStep = 10;

  void begin_length(std::int64_t length);
  bool is_certain(const Comparison& found) const;
  bool next_length(const Comparison& found);  // false when the task is done
  void begin_task();

  EvalRules rules_;
  std::size_t task_ = 0;
  std::size_t length_index_ = 0;
  std::int64_t length_ = 0;
  std::int64_t n_taken_ = 0;
  std::vector<std::string> settings_;  // that go on, of this task
  std::vector<Limit> limits_;
};

}  // namespace starattn
