// SPDX-License-Identifier: Apache-2.0
// One sample of a task, answered in one setting: a line of an evaluation's results.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "benchmark/task.h"
#include "eval/timing_basis.h"
#include "io/document.h"

namespace starattn {

struct Trial {
  std::string id;  // of the document: "<task>-<length>-<sample>"
  std::string setting;
  std::string task;
  std::int64_t length = 0;  // tokens, as asked for
  std::uint64_t seed = 0;
  double score = 0;           // 0 to 1, by the benchmark's rule
  std::int64_t n_right = -1;  // vt: variables of the chain that are right before the first that is
                              // missing; -1 for other tasks
  std::int64_t n_context = 0;
  std::int64_t n_new_tokens = 0;
  double encode_seconds = 0;  // phase 1
  double answer_seconds = 0;  // phase 2
  TimingBasis basis;          // of both
  std::string answer;

  static void fields(auto& trial, auto& archive) {
    auto& [id, setting, task, length, seed, score, n_right, n_context, n_new_tokens, encode_seconds,
           answer_seconds, basis, answer] = trial;
    archive(id, setting, task, length, seed, score, n_right, n_context, n_new_tokens,
            encode_seconds, answer_seconds, basis, answer);
  }
};

// Fills in score and n_right. question: the query without the answer's beginning.
void score(Trial& trial, const TaskInfo& task, const Query& query, const std::string& question);

std::string to_line(const Trial& trial);  // JSON, without line end
// Throws Error(bad_data) naming `where` and the key.
Trial parse_trial(std::string_view line, const std::string& where);
Trial trial_of(const Json& line, const std::string& where);  // as above

}  // namespace starattn
