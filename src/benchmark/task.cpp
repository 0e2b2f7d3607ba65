// SPDX-License-Identifier: Apache-2.0
#include "benchmark/task.h"

#include <algorithm>

namespace starattn {
namespace {

constexpr TaskInfo kTasks[] = {{"niah_single_1", TaskFamily::needles, ScoreRule::all, 128},
                               {"niah_single_2", TaskFamily::needles, ScoreRule::all, 128},
                               {"niah_single_3", TaskFamily::needles, ScoreRule::all, 128},
                               {"niah_multikey_1", TaskFamily::needles, ScoreRule::all, 128},
                               {"niah_multikey_2", TaskFamily::needles, ScoreRule::all, 128},
                               {"niah_multikey_3", TaskFamily::needles, ScoreRule::all, 128},
                               {"niah_multivalue", TaskFamily::needles, ScoreRule::all, 128},
                               {"niah_multiquery", TaskFamily::needles, ScoreRule::all, 128},
                               {"vt", TaskFamily::variable_tracking, ScoreRule::all, 30},
                               {"cwe", TaskFamily::common_words, ScoreRule::all, 120},
                               {"fwe", TaskFamily::frequent_words, ScoreRule::all, 50},
                               {"qa_1", TaskFamily::reading, ScoreRule::any, 32},
                               {"qa_2", TaskFamily::reading, ScoreRule::any, 32},
                               {"qa1", TaskFamily::facts, ScoreRule::labels, 20},
                               {"qa2", TaskFamily::facts, ScoreRule::labels, 20},
                               {"qa3", TaskFamily::facts, ScoreRule::labels, 20},
                               {"qa4", TaskFamily::facts, ScoreRule::labels, 20},
                               {"qa5", TaskFamily::facts, ScoreRule::labels, 20}};

}  // namespace

std::span<const TaskInfo> all_tasks() {
  return kTasks;
}

const TaskInfo* find_task(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTasks), std::end(kTasks),
                                   [&](const TaskInfo& task) { return task.name == name; });
  return found == std::end(kTasks) ? nullptr : found;
}

std::string task_names() {
  std::string names;
  for (const TaskInfo& task : kTasks) {
    if (!names.empty()) names += ", ";
    names += task.name;
  }
  return names;
}

}  // namespace starattn
