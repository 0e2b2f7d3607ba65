// SPDX-License-Identifier: Apache-2.0
// Rank 0's side of an evaluation: says which sample is next, writes down the trials that come back,
// and at the end the tables. What an earlier run of the same evaluation wrote is taken over.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "eval/comparison.h"
#include "eval/eval_plan.h"
#include "eval/eval_run.h"
#include "io/answer_writer.h"
#include "run/loaded_model.h"
#include "run/progress.h"
#include "run/work_queue.h"

namespace starattn {

using EvalQueue = WorkQueue<EvalSample, Trial>;

// The trials of a file that an evaluation wrote. Throws Error(no_input | bad_data | io).
void add_trials(const std::string& path, Comparison& comparison);

class EvalCoordinator : public WorkSource<EvalSample, Trial> {
 public:
  // Throws Error for options that cannot be met, and as AnswerWriter does.
  // progress hears of samples and trials.
  EvalCoordinator(const EvalRunOptions& options, const LoadedModel& model, Progress& progress);

  std::optional<EvalSample> next(bool is_asked_to_stop) override;
  bool waits_for_results() const override;
  void take(Trial trial) override;
  void commit() override { writer_.commit(); }
  // Any error ends the evaluation: its options are what is at fault.
  void failed(std::int64_t number, const Error& error) override;
  void stopped(const std::string& saved) override;
  void broken(const Error& error) override;
  // The tables; the baseline's verdict. ok, stopped or worse. Throws what broke the evaluation.
  Exit finish();

 private:
  using TrialKey = std::pair<std::string, std::string>;  // document id, setting

  // A task and length of which not all trials are in.
  struct OpenCell {
    std::string task;
    std::int64_t length = 0;
    std::vector<std::string> settings;
    std::int64_t n_samples = 0;  // so far
    std::int64_t n_left = 0;     // trials that are to come
  };

  bool has_ended() const { return is_stopped_ || error_; }
  std::string cells_path() const;
  OpenCell& open_cell_of(const EvalSample& sample);
  void say_full_cells(bool is_last_full);
  void say(const OpenCell& cell) const;
  Exit compare_with_baseline() const;

  const EvalRunOptions& options_;
  Progress& progress_;
  EvalPlan plan_;
  std::map<TrialKey, Trial>
      stored_;  // of an earlier run, until their turn comes; filled by writer_
  AnswerWriter writer_;
  Comparison found_;
  std::deque<OpenCell> open_;  // in the plan's order; the last is the one it is at
  std::int64_t n_left_ = 0;    // trials that are to come
  std::int64_t n_new_ = 0;
  std::int64_t n_samples_ = 0;  // of the plan, so far
  bool is_stopped_ = false;
  std::optional<Error> error_;
  Stopwatch clock_;
};

}  // namespace starattn
