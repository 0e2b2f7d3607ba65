// SPDX-License-Identifier: Apache-2.0
// eval: what a way of attending costs. Runs benchmark tasks in several settings; or audits the
// user's own documents against exact attention; or scores a file of answers that is there already.
#include <sys/stat.h>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "command/commands.h"
#include "eval/audit.h"
#include "eval/eval_run.h"
#include "eval/score_sheet.h"
#include "io/answer_writer.h"
#include "io/context_files.h"
#include "io/line_digest.h"
#include "io/line_reader.h"
#include "run/option_checks.h"

namespace starattn {
namespace {

struct EvalOptions {
  EvalRunOptions eval;
  AuditOptions audit;  // but for `run` and `seed`, which are the eval's
  std::string answers;
  bool audits = false;

  bool scores_a_file() const { return !answers.empty(); }
};

Exit score_answers(const EvalOptions& options) {
  const std::string& input = options.eval.run.input;
  const std::string& output = options.eval.run.output;
  if (!output.empty()) require_creatable(output);
  ScoreSheet sheet;
  LineReader documents(input);
  while (const auto line = documents.next())
    sheet.add_document(line->text, line->number,
                       fmt::format("{}:{}", name_of_input(input), line->number));
  LineReader answers(options.answers);
  while (const auto line = answers.next()) {
    const std::string where = fmt::format("{}:{}", name_of_input(options.answers), line->number);
    refuse_changed(line->text, where);
    sheet.add_answer(line->text, where);
  }

  const auto rows = sheet.rows();
  if (rows.empty()) fail(Exit::bad_data, "{}: expected documents, got none", input);
  const bool has_references = std::ranges::any_of(
      rows, [](const ScoreRow& row) { return row.n_scored + row.n_missing > 0; });
  if (!has_references)
    fail(Exit::bad_data, "{}: no query has references to score by, under 'answers'", input);
  if (sheet.n_without_references() > 0)
    log::warn("{}: {} question(s) have no references and are left out", input,
              sheet.n_without_references());
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
  if (options.scores_a_file()) return score_answers(options);
  if (!options.audits) return run_eval(options.eval);
  AuditOptions audit = options.audit;
  audit.run = options.eval.run;
  audit.seed = options.eval.benchmark.seed;
  return run_audit(audit);
}

void declare_files(const EvalOptions& options, FilePurposes& files) {
  const Options& run = options.eval.run;
  if (run.output == kStandardStream)
    fail(Exit::usage, "--output: expected a file; eval writes its tables to standard output");
  struct stat input {};
  const bool is_pipe = run.input == kStandardStream ||
                       (::stat(run.input.c_str(), &input) == 0 && !S_ISREG(input.st_mode));
  if (options.audits && is_pipe)
    fail(Exit::usage,
         "--input: expected a file; an audit reads it twice, first to draw its sample");
  if (!run.model.empty()) files.reads_folder("--model", run.model);
  files.reads("--input", run.input);
  files.reads("--answers", options.answers);
  files.reads("--baseline", options.eval.baseline);
  options.eval.benchmark.declare_files(files);
  if (options.scores_a_file()) {
    files.writes("--output", run.output);
  } else {
    AnswerWriter::declare(files, "--output", run.output);
    if (!options.audits)
      files.writes("the cells of --output", real_path(run.output) + ".cells.jsonl");
  }
  files.writes("--html", options.eval.html);
  declare_trace_files(run, files);
  declare_progress_files(run, files);
  if (options.audits) declare_context_files(run.input, files);
}

// Exactly one of the three kinds of work, and what it needs.
void check(const EvalOptions& options, const CLI::App& app) {
  const Options& run = options.eval.run;
  if (options.scores_a_file() && !options.audits && !run.input.empty()) return;
  const bool computes = !options.scores_a_file() && !run.model.empty() && !run.output.empty();
  if (computes && options.audits != run.input.empty()) {
    for (const char* method : {"--attention", "--block-size", "--anchor-size", "--reach",
                               "--recall", "--recall-rows", "--placement"}) {
      if (!options.audits && app.count(method) > 0)
        throw CLI::ValidationError(method, "goes with --audit; write it as a --setting");
    }
    return;
  }
  throw CLI::ValidationError(
      "eval",
      "expected --model, --output, --task, --length and --setting to compare settings; --audit, "
      "--model, --input and --output to audit documents; or --input and --answers to score a file");
}

void add_comparison_options(CLI::App& app, EvalRunOptions& options) {
  const char* group = "Compare settings";
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
      ->check(between(0.001, 0.5))
      ->group(group);
  app.add_option("--find-limit", options.find_limit,
                 "Double the length while a setting's score is at least this (0 to 1)")
      ->check(between(0.001, 1))
      ->group(group);
  app.add_option("--html", options.html, "Write a page with pictures and the table")->group(group);
  app.add_option("--baseline", options.baseline,
                 "An earlier --output: exit code 3 when a score or a speed is worse than there by "
                 "more than its noise")
      ->group(group);
}

void add_audit_options(CLI::App& app, EvalOptions& options) {
  const char* group = "Audit documents";
  app.add_flag("--audit", options.audits,
               "Answer a sample of --input exactly and as --attention, --block-size, --anchor-size "
               "and --reach say, and compare")
      ->group(group);
  app.add_option("--sample", options.audit.n_sample, "Documents to draw")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str()
      ->group(group);
  app.add_option("--exact", options.audit.exact,
                 "What is exact: ring, on as many ranks as the settings, or dense, on one")
      ->check(CLI::IsMember({"dense", "ring"}))
      ->capture_default_str()
      ->group(group);
  Options& run = options.eval.run;
  app.add_option("--max-new-tokens", run.max_new_tokens,
                 "Longest answer, unless a query says otherwise")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str()
      ->group(group);
  app.add_option("--stop", run.stop, "Text that ends an answer; may be repeated")
      ->allow_extra_args(false)
      ->group(group);
}

}  // namespace

Command add_eval(CLI::App& parser) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* app = parser.add_subcommand(
      "eval",
      "Compare settings on benchmark tasks, audit documents, or score a file of answers (that "
      "without launcher)");
  Options& run = options->eval.run;
  app->add_option("--model", run.model, "Model folder (Hugging Face layout)");
  app->add_option("--input", run.input, "Documents: to audit, or that --answers are about");
  app->add_option("--output", run.output,
                  "Trials or audited answers, JSON Lines; a rerun continues it. With --answers: "
                  "scores, JSON");
  app->add_flag("--overwrite", run.overwrite, "Replace an output made with other settings");
  app->add_option("--timeout", run.timeout,
                  "Minutes without any movement until the run is ended; 0 = never")
      ->check(between(0, 1e6))
      ->capture_default_str();
  add_comparison_options(*app, options->eval);
  add_audit_options(*app, *options);
  add_plan_options(*app, run);
  add_anchor_options(*app, run);
  add_length_options(*app, run);
  add_text_options(*app, run);
  app->add_option("--answers", options->answers, "Score these answers that run wrote to --input")
      ->group("Score a file");
  add_device_options(*app, run);
  add_precision_options(*app, run);
  add_group_options(*app, run);
  add_kv_memory_options(*app, run);
  add_weight_memory_options(*app, run);
  add_query_rank_options(*app, run);
  add_progress_options(*app, run);
  add_trace_options(*app, run);
  app->final_callback([options, app] { check(*options, *app); });
  return {app, [options] { return evaluate(*options); },
          [options] { return !options->scores_a_file(); },
          [options](FilePurposes& files) { declare_files(*options, files); }};
}

}  // namespace starattn
