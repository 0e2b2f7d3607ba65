// SPDX-License-Identifier: Apache-2.0
// generate: a file of benchmark documents, the same bytes from the same options on every machine.
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "command/commands.h"
#include "model/tokenizer.h"
#include "study/document_maker.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxLength = std::int64_t{1} << 24;

struct GenerateOptions {
  std::vector<std::string> tasks;
  std::vector<std::string> lengths;
  std::int64_t count = 500;
  std::uint64_t seed = 42;
  std::string model;
  std::string output;
  std::string data;
  std::string haystack;
  std::string output_format = "starattn";
  bool overwrite = false;

  RecordFormat format() const {
    return output_format == "starattn" ? RecordFormat::starattn : RecordFormat::published;
  }
};

std::vector<const TaskInfo*> chosen_tasks(const GenerateOptions& options) {
  std::vector<const TaskInfo*> tasks;
  const auto add = [&](const TaskInfo* task) {
    if (std::find(tasks.begin(), tasks.end(), task) != tasks.end())
      fail(Exit::usage, "--task: {} is there twice", task->name);
    tasks.push_back(task);
  };
  for (const std::string& name : options.tasks) {
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
  return tasks;
}

std::vector<std::int64_t> chosen_lengths(const GenerateOptions& options) {
  std::vector<std::int64_t> lengths;
  for (const std::string& text : options.lengths) {
    const std::int64_t length = parse_tokens(text, "--length");
    if (length < 1 || length > kMaxLength)
      fail(Exit::usage, "--length: expected 1 to {} tokens, got {}", with_commas(kMaxLength), text);
    if (std::find(lengths.begin(), lengths.end(), length) != lengths.end())
      fail(Exit::usage, "--length: {} is there twice", with_commas(length));
    lengths.push_back(length);
  }
  return lengths;
}

Materials read_materials(const GenerateOptions& options,
                         const std::vector<const TaskInfo*>& tasks) {
  Materials materials;
  if (!options.haystack.empty()) materials.haystack = Haystack::read(options.haystack);
  std::vector<std::string_view> readers;
  for (const TaskInfo* task : tasks)
    if (task->needs_data()) readers.push_back(task->name);
  if (readers.size() > 1)
    fail(Exit::usage, "--task: qa_1 and qa_2 need data files of their own; generate them apart");
  if (readers.empty() != options.data.empty()) {
    if (readers.empty()) fail(Exit::usage, "--data belongs to the tasks qa_1 and qa_2");
    fail(Exit::usage, "--data: task {} needs {}", readers[0],
         readers[0] == "qa_1" ? "a file of SQuAD (JSON)" : "a file of HotpotQA (JSON)");
  }
  if (!readers.empty()) materials.reading = read_reading_data(options.data, readers[0]);
  return materials;
}

void check_output(const GenerateOptions& options, std::size_t n_cells) {
  struct stat info {};
  if (!options.overwrite && ::stat(options.output.c_str(), &info) == 0)
    fail(Exit::cannot_create, "{} exists; --overwrite replaces it", options.output);
  if (options.format() == RecordFormat::published && n_cells != 1) {
    fail(Exit::usage,
         "--output-format star-attention: its records are known by a number alone, expected one "
         "task and one length, got {} pairs",
         n_cells);
  }
}

Exit generate(const GenerateOptions& options) {
  const Stopwatch watch;
  const auto tasks = chosen_tasks(options);
  const auto lengths = chosen_lengths(options);
  check_output(options, tasks.size() * lengths.size());
  const Materials materials = read_materials(options, tasks);
  const auto tokenizer = Tokenizer::open(options.model);

  // What does not fit is known before anything is written.
  std::vector<DocumentMaker> makers;
  for (const TaskInfo* task : tasks)
    for (const std::int64_t length : lengths)
      makers.emplace_back(*task, length, options.seed, *tokenizer, materials);
  DurableFile output(options.output);
  for (const DocumentMaker& maker : makers) {
    for (std::int64_t i = 0; i < options.count; ++i)
      output.append(maker.line(i, options.format()) + "\n");
    log::info("{}, {} tokens: {} document(s)", maker.task().name, with_commas(maker.length()),
              with_commas(options.count));
  }
  output.commit();
  log::info("{}: {} document(s), seed {}, in {}", options.output,
            with_commas(options.count * static_cast<std::int64_t>(makers.size())), options.seed,
            human_seconds(watch.seconds()));
  return Exit::ok;
}

}  // namespace

Command add_generate(CLI::App& parser) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* app = parser.add_subcommand(
      "generate", "Write benchmark documents (RULER, BABILong) as input lines (no launcher)");
  app->add_option("--task", options->tasks,
                  "Tasks, with commas between, or all that need no data: " + task_names())
      ->required()
      ->delimiter(',');
  app->add_option("--length", options->lengths,
                  "Tokens of context, question and answer together: 4096,32k,1m")
      ->required()
      ->delimiter(',');
  app->add_option("--count", options->count, "Documents of each task and length")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->capture_default_str();
  app->add_option("--seed", options->seed, "The same seed gives the same bytes")
      ->check(CLI::Range(std::uint64_t{0}, std::uint64_t{INT64_MAX}))
      ->capture_default_str();
  app->add_option("--model", options->model, "Model folder: its tokenizer measures the lengths")
      ->required();
  app->add_option("--output", options->output, "File of input lines to write")->required();
  app->add_option("--data", options->data, "SQuAD's file for qa_1, HotpotQA's for qa_2");
  app->add_option("--haystack", options->haystack,
                  "Text file whose sentences hide the facts, in place of generated prose");
  app->add_option("--output-format", options->output_format,
                  "starattn, or star-attention (the published tool's records)")
      ->check(CLI::IsMember({"starattn", "star-attention"}))
      ->capture_default_str();
  app->add_flag("--overwrite", options->overwrite, "Replace an output that exists");
  return {app, [options] { return generate(*options); }, [] { return log::Format::text; }, false};
}

}  // namespace starattn
