// SPDX-License-Identifier: Apache-2.0
// eval: a file of answers scored by the benchmarks' own rules, for each task and length.
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "batch/line_reader.h"
#include "command/commands.h"
#include "study/score_sheet.h"

namespace starattn {
namespace {

struct EvalOptions {
  std::string input;
  std::string answers;
  std::string output;
};

Exit evaluate(const EvalOptions& options) {
  ScoreSheet sheet;
  LineReader documents(options.input);
  while (const auto line = documents.next())
    sheet.add_document(line->text, line->number, fmt::format("{}:{}", options.input, line->number));
  LineReader answers(options.answers);
  while (const auto line = answers.next())
    sheet.add_answer(line->text, fmt::format("{}:{}", options.answers, line->number));

  const auto rows = sheet.rows();
  if (rows.empty()) fail(Exit::bad_data, "{}: expected documents, got none", options.input);
  std::cout << to_table(rows);
  if (!options.output.empty()) {
    const Json json = {
        {"input", options.input}, {"answers", options.answers}, {"scores", to_json(rows)}};
    write_file_durably(options.output, to_line(json) + "\n");
  }
  std::int64_t n_missing = 0;
  for (const ScoreRow& row : rows) n_missing += row.n_missing;
  if (n_missing == 0) return Exit::ok;
  log::warn("{}: {} question(s) of {} have no answer; the scores leave them out", options.answers,
            n_missing, options.input);
  return Exit::bad_data;
}

}  // namespace

Command add_eval(CLI::App& parser) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* app = parser.add_subcommand(
      "eval", "Score answers to generated documents, with 95 % intervals (no launcher)");
  app->add_option("--input", options->input, "Documents that generate wrote")->required();
  app->add_option("--answers", options->answers, "Answers that run wrote to them")->required();
  app->add_option("--output", options->output, "Write the scores to this file too, as JSON");
  return {app, [options] { return evaluate(*options); }, [] { return log::Format::text; }, false};
}

}  // namespace starattn
