// SPDX-License-Identifier: Apache-2.0
// starattn report: tables, a page and pictures of what eval, its audit and bench have written, on
// any machine.
#include <iostream>
#include <map>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "command/commands.h"
#include "eval/accuracy_report.h"
#include "eval/audit_line.h"
#include "eval/audit_report.h"
#include "eval/eval_coordinator.h"
#include "io/line_digest.h"
#include "io/line_reader.h"
#include "mpi/runtime.h"
#include "study/study_report.h"
#include "version.h"

namespace starattn {
namespace {

struct ReportOptions {
  std::vector<std::string> files;
  std::string title;
  std::string html;
  std::string svg;
};

struct Found {
  Comparison trials;
  std::vector<AuditRow> audited;
  std::vector<Study> studies;
};

// By document, in the order in which they came.
std::vector<AuditRow> read_audit(const std::string& path) {
  std::vector<std::vector<AuditLine>> documents;
  std::map<std::string, std::size_t> place;
  std::map<std::pair<std::string, std::string>, std::int64_t> line_of;
  LineReader lines(path);
  while (const auto line = lines.next()) {
    const std::string where = fmt::format("{}:{}", path, line->number);
    refuse_changed(line->text, where);
    AuditLine one = parse_audit_line(line->text, where);
    const auto [first, is_first] = line_of.emplace(std::pair(one.id, one.query_id), line->number);
    if (!is_first)
      fail(Exit::bad_data, "{}: document '{}', query '{}' was there before, in line {}", where,
           one_line(one.id), one_line(one.query_id), first->second);
    const auto [at, is_new] = place.try_emplace(one.id, documents.size());
    if (is_new) documents.emplace_back();
    documents[at->second].push_back(std::move(one));
  }
  std::vector<AuditRow> rows;
  for (const std::vector<AuditLine>& document : documents) rows.push_back(row_of(document));
  return rows;
}

// Their medians are taken together, so they have to be of one model and machine.
void require_alike(const Json& head, const Json& first, const std::string& path) {
  for (const char* key : {"model", "device", "dtype"}) {
    const Json is = head.value(key, Json());
    const Json was = first.value(key, Json());
    if (is == was) continue;
    fail(Exit::bad_data,
         "{}: {} is {}, in the study before it {}. Medians of both together would say nothing; "
         "report them apart",
         path, key, to_line(is), to_line(was));
  }
}

// What a file is, its first line says.
void read(const std::string& path, Found& found) {
  const std::optional<Line> first = LineReader(path).next();
  if (!first) fail(Exit::bad_data, "{}: no line in it", path);
  const Json json = parse_json(first->text, path + ":1");
  const JsonObject line(json, path + ":1");
  if (line.has("schema")) {
    found.studies.push_back(read_study(path));
    require_alike(found.studies.back().head, found.studies.front().head, path);
  } else if (line.has("kl_sum")) {
    for (AuditRow& row : read_audit(path)) found.audited.push_back(std::move(row));
  } else {
    add_trials(path, found.trials);
  }
}

std::string audit_table(const std::vector<AuditRow>& rows) {
  std::string table = audit_table_head();
  for (const AuditRow& row : rows) table += to_table_line(row);
  return table + to_table(summarise(rows));
}

void print_studies(const std::vector<Study>& studies) {
  for (const Study& study : studies) {
    const auto text = [&](const char* key) { return study.head[key].get<std::string>(); };
    std::cout << fmt::format("study of {}: {}, {} measurement(s)\n", one_line(text("date")),
                             one_line(text("model")), study.measurements.size());
  }
}

// Results do not depend on the number of ranks: what studies of one model and device have both
// measured has one digest.
void compare_bits(const std::vector<Study>& studies) {
  std::map<std::string, const Measurement*> first;
  std::int64_t n_compared = 0;
  for (const Study& study : studies) {
    std::string of;
    for (const char* key : {"version", "model", "weights", "device", "dtype"})
      if (study.head.contains(key)) of += to_line(study.head[key]) + " ";
    for (const Measurement& one : study.measurements) {
      const auto [at, is_new] = first.try_emplace(of + one.result_key(), &one);
      if (is_new || at->second->n_ranks == one.n_ranks) continue;
      ++n_compared;
      if (at->second->digest == one.digest) continue;
      log::warn("{}, {} tokens, {}: the result of {} rank(s) has other bits than that of {}",
                one.setting, with_commas(one.n_context), one.operation, one.n_ranks,
                at->second->n_ranks);
    }
  }
  if (n_compared > 0)
    std::cout << fmt::format("{} repeat(s) were compared with those of other numbers of ranks\n",
                             with_commas(n_compared));
}

Exit report(const ReportOptions& options) {
  for (const std::string& path : {options.html, options.svg})
    if (!path.empty()) require_creatable(path);
  Found found;
  for (const std::string& path : options.files) read(path, found);
  const std::vector<Cell> cells = found.trials.cells();
  std::vector<PageSection> sections;
  const auto add = [&](std::vector<PageSection> more) {
    sections.insert(sections.end(), more.begin(), more.end());
  };
  if (!cells.empty()) {
    std::cout << to_terminal(cells);
    add(accuracy_sections(cells));
  }
  if (!found.audited.empty()) {
    std::cout << audit_table(found.audited);
    add({audit_section(found.audited)});
  }
  if (!found.studies.empty()) {
    print_studies(found.studies);
    compare_bits(found.studies);
    add(study_sections(found.studies));
  }
  if (!options.html.empty()) {
    const std::string usual = cells.empty() ? "Measurements" : "models tried";
    const std::string title = options.title.empty() ? usual : options.title;
    const ReportHead head{cells.empty() ? title : "Accuracy of " + title, command_line(),
                          "starattn " STARATTN_VERSION};
    write_file_durably(options.html, to_page(head, sections));
    log::info("report: {}", options.html);
  }
  if (!options.svg.empty()) {
    const std::vector<Chart> charts = charts_of(found.studies);
    if (charts.empty())
      fail(Exit::bad_data,
           "--svg: expected studies of 'bench --json' with two contexts or numbers "
           "of ranks at least, whose pictures it writes");
    write_file_durably(options.svg, to_svg_file(charts));
    log::info("pictures: {}", options.svg);
  }
  return Exit::ok;
}

}  // namespace

Command add_report(CLI::App& parser) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* app = parser.add_subcommand(
      "report",
      "Show what eval, its audit and bench have written as tables and a page (no launcher)");
  app->add_option("files", options->files,
                  "Files of 'eval --output' (of one model), 'eval --audit' and 'bench --json'")
      ->required();
  app->add_option("--title", options->title, "What the page is about");
  app->add_option("--html", options->html, "Write a page with pictures and the tables");
  app->add_option("--svg", options->svg, "Write the pictures of studies alone");
  return {app, [options] { return report(*options); }, [] { return false; },
          [options](FilePurposes& files) {
            for (std::size_t i = 0; i < options->files.size();
                 ++i)  // once each, or they count double
              files.reads(fmt::format("file {}", i + 1), options->files[i]);
            files.writes("--html", options->html);
            files.writes("--svg", options->svg);
          }};
}

}  // namespace starattn
