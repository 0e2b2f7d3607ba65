// SPDX-License-Identifier: Apache-2.0
// Rank 0's side of an evaluation: says which samples are next, writes down the trials that come
// back, and at the end the tables. What an earlier run of the same evaluation wrote is taken over.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "eval/comparison.h"
#include "eval/eval_plan.h"
#include "eval/eval_run.h"
#include "io/answer_writer.h"
#include "run/loaded_model.h"

namespace starattn {

// A sample of a round and the settings in which it has not been tried yet.
struct SampleRequest {
  std::int64_t index = 0;
  std::vector<std::string> settings;
};

// What rank 0 tells the others; as text empty at the end.
struct Announcement {
  std::string task;
  std::int64_t length = 0;
  std::vector<SampleRequest> samples;
};
Announcement parse_announcement(const std::string& text);

// What a rank says after a round.
struct RoundReport {
  std::vector<std::string> trials;  // lines
  std::string error;
  Exit exit = Exit::ok;
  bool is_asked_to_stop = false;
};
std::string to_text(const RoundReport& report);

// The trials of a file that an evaluation wrote. Throws Error(no_input | bad_data | io).
void add_trials(const std::string& path, Comparison& comparison);

class EvalCoordinator {
 public:
  // Throws Error for options that cannot be met, and as AnswerWriter does.
  EvalCoordinator(const EvalRunOptions& options, const LoadedModel& session, int n_groups);

  std::string next_round();  // an Announcement as text
  // One report a rank. Everything in them is saved before an error among them is thrown.
  void take(const std::vector<std::string>& reports);
  // The tables; the baseline's verdict. ok, stopped or worse.
  Exit finish();

 private:
  using TrialKey = std::pair<std::string, std::string>;  // document id, setting

  std::string cells_path() const;
  void take_over();
  void put(const Trial& trial);
  void say_cell_done(const Round& next);
  Exit compare_with_baseline() const;

  const EvalRunOptions& options_;
  int n_groups_;
  EvalPlan plan_;
  AnswerWriter writer_;
  std::map<TrialKey, Trial> stored_;  // of an earlier run, until their round comes
  Comparison found_;
  Round round_;  // the one under way
  bool is_stopped_ = false;
  std::int64_t n_new_ = 0;
  Stopwatch clock_;
};

}  // namespace starattn
