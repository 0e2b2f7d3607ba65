// SPDX-License-Identifier: Apache-2.0
// eval: what a way of attending costs in right answers. Runs tasks x lengths x settings itself, or
// scores a file of answers that is there already.
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "batch/line_reader.h"
#include "command/commands.h"
#include "command/survey.h"
#include "study/score_sheet.h"

namespace starattn {
namespace {

struct EvalOptions {
  SurveyOptions survey;
  std::string answers;

  bool scores_a_file() const { return !answers.empty(); }
};

Exit score_answers(const EvalOptions& options) {
  const std::string& input = options.survey.run.input;
  const std::string& output = options.survey.run.output;
  ScoreSheet sheet;
  LineReader documents(input);
  while (const auto line = documents.next())
    sheet.add_document(line->text, line->number, fmt::format("{}:{}", input, line->number));
  LineReader answers(options.answers);
  while (const auto line = answers.next())
    sheet.add_answer(line->text, fmt::format("{}:{}", options.answers, line->number));

  const auto rows = sheet.rows();
  if (rows.empty()) fail(Exit::bad_data, "{}: expected documents, got none", input);
  std::cout << to_table(rows);
  if (!output.empty()) {
    const Json json = {{"input", input}, {"answers", options.answers}, {"scores", to_json(rows)}};
    write_file_durably(output, to_line(json) + "\n");
  }
  std::int64_t n_missing = 0;
  for (const ScoreRow& row : rows) n_missing += row.n_missing;
  if (n_missing == 0) return Exit::ok;
  log::warn("{}: {} question(s) of {} have no answer; the scores leave them out", options.answers,
            n_missing, input);
  return Exit::bad_data;
}

Exit evaluate(const EvalOptions& options) {
  return options.scores_a_file() ? score_answers(options) : run_survey(options.survey);
}

void add_survey_options(CLI::App& app, SurveyOptions& options) {
  const char* group = "Compare settings";
  app.add_option("--model", options.run.model, "Model folder (Hugging Face layout)")->group(group);
  const BenchmarkFlags flags = add_benchmark_options(app, options.benchmark);
  flags.task->group(group);
  flags.length->group(group);
  app.add_option("--setting", options.settings,
                 "A way of attending; may be repeated: dense, ring, star, star:b=n/4,a=b,r=0 (b: "
                 "tokens or n/k; a: tokens, b or b/k; r: blocks or all)")
      ->group(group);
  app.add_option("--count", options.count, "Samples of each task and length, at most")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->capture_default_str()
      ->group(group);
  app.add_option("--until", options.until,
                 "Stop sampling a task and length, after 10, 20, ... samples, when each setting's "
                 "95 % interval is this wide to either side")
      ->check(CLI::Range(0.001, 0.5))
      ->group(group);
  app.add_option("--find-limit", options.find_limit,
                 "Double the length while a setting's score is at least this (0 to 1)")
      ->check(CLI::Range(0.001, 1.0))
      ->group(group);
  app.add_option("--html", options.html, "Write a page with pictures and the table")->group(group);
  app.add_option("--baseline", options.baseline,
                 "An earlier --output: exit code 1 when a score or a speed is worse than there by "
                 "more than its noise")
      ->group(group);
  app.add_flag("--allow-long", options.run.allow_long,
               "Accept lengths beyond the model's positions")
      ->group(group);
  app.add_option("--chat", options.run.chat, "Chat markup: auto, none, llama3 or qwen")
      ->check(CLI::IsMember({"auto", "none", "llama3", "qwen"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--timeout", options.run.timeout,
                 "Minutes without any movement until the run is ended; 0 = never")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str()
      ->group(group);
  app.add_flag("--overwrite", options.run.overwrite, "Replace an output made with another model")
      ->group(group);
  add_machine_options(app, options.run);
  add_log_options(app, options.run);
}

}  // namespace

Command add_eval(CLI::App& parser) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* app = parser.add_subcommand(
      "eval", "Compare settings on benchmark tasks, or score a file of answers (no launcher)");
  app->add_option("--output", options->survey.run.output,
                  "Trials, JSON Lines; a rerun continues it. With --answers: scores, JSON");
  add_survey_options(*app, options->survey);
  const char* group = "Score a file";
  auto* input =
      app->add_option("--input", options->survey.run.input, "Documents of generate")->group(group);
  app->add_option("--answers", options->answers, "Answers that run wrote to them")
      ->needs(input)
      ->group(group);
  const auto is_survey = [options] { return !options->scores_a_file(); };
  app->final_callback([options] {
    if (options->scores_a_file()) return;
    if (options->survey.run.model.empty() || options->survey.run.output.empty()) {
      throw CLI::ValidationError(
          "eval",
          "expected --input and --answers, or --model, --output, --task, --length and "
          "--setting");
    }
  });
  return {app, [options] { return evaluate(*options); },
          [options] { return options->survey.run.format(); }, is_survey};
}

}  // namespace starattn
