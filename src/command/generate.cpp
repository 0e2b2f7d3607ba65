// SPDX-License-Identifier: Apache-2.0
// generate: a file of benchmark documents, the same bytes from the same options on every machine.
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "benchmark/benchmark_options.h"
#include "benchmark/document_maker.h"
#include "command/commands.h"
#include "tokenizer/tokenizer.h"

namespace starattn {
namespace {

struct GenerateOptions {
  BenchmarkOptions benchmark;
  std::int64_t count = 500;
  std::string model;
  std::string output;
  std::string output_format = "starattn";
  bool overwrite = false;

  RecordFormat format() const {
    return output_format == "starattn" ? RecordFormat::starattn : RecordFormat::published;
  }
};

// Lines for a file, which appears when it is whole, or for standard output.
class LineOutput {
 public:
  explicit LineOutput(const std::string& path) {
    if (path != kStandardStream) file_.emplace(path);
  }
  void append(const std::string& line) {
    if (file_) {
      file_->append(line + "\n");
    } else {
      write_all(STDOUT_FILENO, line + "\n", "standard output");
    }
  }
  void commit() {
    if (file_) file_->commit();
  }

 private:
  std::optional<DurableFile> file_;
};

void check_output(const GenerateOptions& options, std::size_t n_cells) {
  struct stat info {};
  if (options.output != kStandardStream && !options.overwrite &&
      ::stat(options.output.c_str(), &info) == 0)
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
  const auto tasks = options.benchmark.chosen_tasks();
  const auto lengths = options.benchmark.chosen_lengths();
  check_output(options, tasks.size() * lengths.size());
  const Materials materials = options.benchmark.read_materials();
  const auto tokenizer = Tokenizer::open(options.model);

  // What does not fit is known before anything is written.
  std::vector<DocumentMaker> makers;
  for (const TaskInfo* task : tasks)
    for (const std::int64_t length : lengths)
      makers.emplace_back(*task, length, options.benchmark.seed, *tokenizer, materials);
  LineOutput output(options.output);
  for (const DocumentMaker& maker : makers) {
    for (std::int64_t i = 0; i < options.count; ++i) output.append(maker.line(i, options.format()));
    log::info("{}, {} tokens: {} document(s)", maker.task().name, with_commas(maker.length()),
              with_commas(options.count));
  }
  output.commit();
  log::info("{}: {} document(s), seed {}, in {}",
            options.output == kStandardStream ? "standard output" : options.output,
            with_commas(options.count * static_cast<std::int64_t>(makers.size())),
            options.benchmark.seed, human_seconds(watch.seconds()));
  return Exit::ok;
}

}  // namespace

Command add_generate(CLI::App& parser) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* app = parser.add_subcommand(
      "generate", "Write benchmark documents (RULER, BABILong) as input lines (no launcher)");
  const BenchmarkFlags flags = add_benchmark_options(*app, options->benchmark);
  flags.task->required();
  flags.length->required();
  app->add_option("--count", options->count, "Documents of each task and length")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->capture_default_str();
  app->add_option("--model", options->model, "Model folder: its tokenizer measures the lengths")
      ->required();
  app->add_option("--output", options->output, "File of input lines to write; - is standard output")
      ->required();
  app->add_option("--output-format", options->output_format,
                  "starattn, or star-attention (the published tool's records)")
      ->check(CLI::IsMember({"starattn", "star-attention"}))
      ->capture_default_str();
  app->add_flag("--overwrite", options->overwrite, "Replace an output that exists");
  return {app, [options] { return generate(*options); }, [] { return false; },
          [options](FilePurposes& files) {
            files.reads_folder("--model", options->model);
            options->benchmark.declare_files(files);
            files.writes_or_streams("--output", options->output);
          }};
}

}  // namespace starattn
