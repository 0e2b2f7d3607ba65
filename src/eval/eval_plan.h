// SPDX-License-Identifier: Apache-2.0
// Which sample an evaluation takes next, given what it has found so far. An evaluation on any
// number of ranks, or begun again, takes the same ones in the same order.
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

// One document of a task, to be tried in some settings.
struct EvalSample {
  std::int64_t number = 0;  // of its task and length, from 0
  std::string task;
  std::int64_t length = 0;
  std::vector<std::string> settings;

  static void fields(auto& sample, auto& archive) {
    auto& [number, task, length, settings] = sample;
    archive(number, task, length, settings);
  }
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

  // Whether the next sample, or that there is none, depends on how the ones before it went.
  bool depends_on_results() const;
  // None when the evaluation is complete. found: all trials of the samples before, where
  // depends_on_results().
  std::optional<EvalSample> next(const Comparison& found);
  const std::vector<Limit>& limits() const { return limits_; }  // of find_limit

 private:
  // Sampling ends early only behind a whole number of these.
  static constexpr std::int64_t kStep = 10;

  void begin_length(std::int64_t length);
  bool may_be_certain() const;  // here sampling can end early
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
