// SPDX-License-Identifier: Apache-2.0
#include "benchmark/benchmark_options.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxLength = std::int64_t{1} << 24;

}  // namespace

std::vector<const TaskInfo*> BenchmarkOptions::chosen_tasks() const {
  std::vector<const TaskInfo*> chosen;
  const auto add = [&](const TaskInfo* task) {
    if (std::ranges::find(chosen, task) != chosen.end())
      fail(Exit::usage, "--task: {} is there twice", task->name);
    chosen.push_back(task);
  };
  for (const std::string& name : tasks) {
    if (name == "all") {
      for (const TaskInfo& task : all_tasks())
        if (!task.needs_data()) add(&task);
      continue;
    }
    const TaskInfo* task = find_task(name);
    if (!task)
      fail(Exit::usage, "--task: expected all (that need no data) or some of {}, got '{}'",
           task_names(), name);
    add(task);
  }
  return chosen;
}

std::vector<std::int64_t> BenchmarkOptions::chosen_lengths() const {
  std::vector<std::int64_t> chosen;
  for (const std::string& text : lengths) {
    const std::int64_t length = parse_tokens(text, "--length");
    if (length < 1 || length > kMaxLength)
      fail(Exit::usage, "--length: expected 1 to {} tokens, got {}", with_commas(kMaxLength), text);
    if (std::ranges::find(chosen, length) != chosen.end())
      fail(Exit::usage, "--length: {} is there twice", with_commas(length));
    chosen.push_back(length);
  }
  return chosen;
}

Materials BenchmarkOptions::read_materials() const {
  Materials materials;
  if (!haystack.empty()) materials.haystack = Haystack::read(haystack);
  std::vector<std::string_view> readers;
  for (const TaskInfo* task : chosen_tasks())
    if (task->needs_data()) readers.push_back(task->name);
  if (readers.size() > 1)
    fail(Exit::usage, "--task: qa_1 and qa_2 need data files of their own; take them apart");
  if (readers.empty() != data.empty()) {
    if (readers.empty()) fail(Exit::usage, "--data belongs to the tasks qa_1 and qa_2");
    fail(Exit::usage, "--data: task {} needs {}", readers[0],
         readers[0] == "qa_1" ? "a file of SQuAD (JSON)" : "a file of HotpotQA (JSON)");
  }
  if (!readers.empty()) materials.reading = read_reading_data(data, readers[0]);
  return materials;
}

void BenchmarkOptions::declare_files(FilePurposes& files) const {
  files.reads("--data", data);
  files.reads("--haystack", haystack);
}

BenchmarkFlags add_benchmark_options(CLI::App& app, BenchmarkOptions& options) {
  BenchmarkFlags flags;
  flags.task =
      app.add_option("--task", options.tasks,
                     "Tasks, with commas between, or all that need no data: " + task_names())
          ->delimiter(',');
  flags.length = app.add_option("--length", options.lengths,
                                "Tokens of context, question and answer together: 4096,32k,1m")
                     ->delimiter(',');
  app.add_option("--seed", options.seed, "The same seed gives the same bytes")
      ->check(CLI::Range(std::uint64_t{0}, std::uint64_t{INT64_MAX}))
      ->capture_default_str();
  app.add_option("--data", options.data, "SQuAD's file for qa_1, HotpotQA's for qa_2");
  app.add_option("--haystack", options.haystack,
                 "Text file whose sentences hide the facts, in place of generated prose");
  return flags;
}

}  // namespace starattn
