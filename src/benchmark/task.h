// SPDX-License-Identifier: Apache-2.0
// The benchmark tasks by name: how long an answer may be, how it is scored, what hides it.
// RULER's thirteen and BABILong's qa1 to qa5; docs/benchmarks.md has the definitions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace starattn {

enum class TaskFamily : std::uint8_t {
  needles,
  variable_tracking,
  common_words,
  frequent_words,
  reading,  // question answering over the user's data file
  facts     // BABILong
};

enum class ScoreRule : std::uint8_t {
  all,    // share of the references that the answer contains
  any,    // 1 when it contains one of them
  labels  // 1 when the labels in the answer, less the question's, are the reference
};

struct TaskInfo {
  std::string_view name;
  TaskFamily family = TaskFamily::needles;
  ScoreRule rule = ScoreRule::all;
  std::int64_t max_new_tokens = 0;

  bool needs_data() const { return family == TaskFamily::reading; }
};

std::span<const TaskInfo> all_tasks();
const TaskInfo* find_task(std::string_view name);  // nullptr when there is none
std::string task_names();                          // "niah_single_1, niah_single_2, ..."

}  // namespace starattn
