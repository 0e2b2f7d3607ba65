// SPDX-License-Identifier: Apache-2.0
// starattn report: the tables and the page of trials that eval has written, on any machine.
#include <iostream>

#include "base/file.h"
#include "base/log.h"
#include "command/commands.h"
#include "eval/accuracy_report.h"
#include "eval/eval_coordinator.h"
#include "mpi/runtime.h"
#include "version.h"

namespace starattn {
namespace {

struct ReportOptions {
  std::vector<std::string> trials;
  std::string title = "models tried";
  std::string html;
};

Exit report(const ReportOptions& options) {
  if (!options.html.empty()) require_creatable(options.html);
  Comparison found;
  for (const std::string& path : options.trials) add_trials(path, found);
  const std::vector<Cell> cells = found.cells();
  if (cells.empty()) fail(Exit::bad_data, "{}: no trial in it", fmt::join(options.trials, ", "));
  std::cout << to_terminal(cells);
  if (!options.html.empty()) {
    const ReportHead head{options.title, command_line(), "starattn " STARATTN_VERSION};
    write_file_durably(options.html, to_html(cells, head));
    log::info("report: {}", options.html);
  }
  return Exit::ok;
}

}  // namespace

Command add_report(CLI::App& parser) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* app = parser.add_subcommand(
      "report", "Show trials that eval has written as tables and a page (no launcher)");
  app->add_option("trials", options->trials, "Files that 'eval --output' wrote; of one model")
      ->required();
  app->add_option("--title", options->title, "What the page is about")->capture_default_str();
  app->add_option("--html", options->html, "Write a page with pictures and the table");
  return {app, [options] { return report(*options); }, [] { return false; },
          [options](FilePurposes& files) {
            for (const std::string& path : options->trials) files.reads("the trials", path);
            files.writes("--html", options->html);
          }};
}

}  // namespace starattn
