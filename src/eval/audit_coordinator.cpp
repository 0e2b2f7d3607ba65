// SPDX-License-Identifier: Apache-2.0
#include "eval/audit_coordinator.h"

#include <algorithm>
#include <iostream>

#include "base/log.h"
#include "eval/line_sample.h"
#include "mpi/runtime.h"
#include "run/model_settings.h"

namespace starattn {
namespace {

Json settings_of(const AuditOptions& options, const LoadedModel& model) {
  const Options& run = options.run;
  Json json = model_settings(model);
  json["attention"] = run.attention;
  json["block_size"] = run.block_size;
  json["anchor_size"] = run.anchor_size;
  json["reach"] = run.reach;
  if (run.recall != "0") {
    json["recall"] = run.recall;
    json["recall_rows"] = run.recall_rows;
  }
  json["anchor"] = run.anchor;
  json["exact"] = options.exact;
  json["max_new_tokens"] = run.max_new_tokens;
  json["stop"] = run.stop;
  return json;
}

std::vector<std::int64_t> sample_of(const AuditOptions& options) {
  LineSample sample(options.seed, options.n_sample);
  LineReader lines(options.run.input);
  while (const auto line = lines.next()) sample.see(line->index);
  return sample.chosen();
}

}  // namespace

AuditCoordinator::AuditCoordinator(const AuditOptions& options, const LoadedModel& model,
                                   Progress& progress)
    : options_(options),
      progress_(progress),
      chosen_(sample_of(options)),
      reader_(options.run.input),
      writer_(options.run.output, settings_of(options, model), options.run.overwrite,
              [this](const Json& json, const std::string& where) {
                AuditLine line = audit_line_of(json, where);
                AnswerKey key{line.id, line.query_id};
                stored_.emplace(std::move(key), std::move(line));
              }) {
  if (chosen_.empty()) fail(Exit::bad_data, "{}: no document in it", options.run.input);
  progress.expect(std::ssize(chosen_));
  log::info("{}: {} document(s) drawn, seed {}", options.run.input, chosen_.size(), options.seed);
  std::cout << audit_table_head();
}

std::optional<AuditTask> AuditCoordinator::next(bool is_asked_to_stop) {
  is_stopped_ = is_stopped_ || is_asked_to_stop || stop_requested();
  while (!is_stopped_ && !error_ && n_given_ < chosen_.size()) {
    const std::optional<Line> line = reader_.next();
    if (!line) fail(Exit::io, "{} became shorter while it was read", options_.run.input);
    if (line->index != chosen_[n_given_]) continue;
    progress_.begin_document(static_cast<std::int64_t>(++n_given_));
    AuditTask task{line->number, {}};
    try {
      task.document = parse_document(line->text, line->number, where(line->number));
      refuse_repeated(task.document);
    } catch (const Error& error) {
      log::error("{}", error.what());
      ++n_bad_;
      progress_.count_bad_line();
      continue;
    }
    const Document& document = task.document;
    OpenRow& row = open_.emplace_back(OpenRow{line->number, {}, stored_row(document)});
    for (const Query& query : document.queries) {
      if (!writer_.is_answered(document.id, query.id)) row.todo.insert(query.id);
      writer_.expect(document.id, query.id, line->number);
    }
    if (!row.row) return task;
    say_rows();
  }
  return std::nullopt;
}

void AuditCoordinator::take(AuditResult result) {
  if (result.lines.empty()) fail(Exit::bug, "{}: no line came back", where(result.number));
  OpenRow& row = open_row(result.number);
  for (const AuditLine& line : result.lines) {
    if (!row.todo.contains(line.query_id)) continue;
    writer_.put(line.id, line.query_id, to_line(line));
    progress_.count_answer();
  }
  row.row = row_of(result.lines);
  say_rows();
}

void AuditCoordinator::failed(std::int64_t number, const Error& error) {
  log::error("{}: {}", where(number), error.what());
  ++n_bad_;
  writer_.give_up(number);
  open_row(number).is_left_out = true;
  say_rows();
}

void AuditCoordinator::stopped(const std::string&) {
  is_stopped_ = true;
}

void AuditCoordinator::broken(const Error& error) {
  if (!error_) error_ = error;
}

Exit AuditCoordinator::finish() {
  if (error_) throw Error(*error_);
  if (is_stopped_) {
    log::warn(
        "stopped early, as asked; every document so far is in {}; run the same command "
        "again to go on",
        options_.run.output);
    return Exit::stopped;
  }
  writer_.finish(/*knows_every_key=*/false);  // it may hold more samples than these
  if (!rows_.empty()) std::cout << to_table(summarise(rows_)) << std::flush;
  if (n_bad_ > 0) log::warn("{} document(s) of the sample could not be asked", n_bad_);
  return n_bad_ > 0 ? Exit::bad_data : Exit::ok;
}

std::string AuditCoordinator::where(std::int64_t line) const {
  return fmt::format("{}:{}", options_.run.input, line);
}

// Answers are known by document and query: of two lines that share one, the later is refused.
void AuditCoordinator::refuse_repeated(const Document& document) {
  for (const Query& query : document.queries) {
    const auto [seen, is_new] = line_of_.emplace(AnswerKey{document.id, query.id}, document.line);
    if (is_new || seen->second == document.line) continue;
    fail(Exit::bad_data,
         "{}: document '{}', query '{}' was there before, in line {}: answers could not be told "
         "apart",
         where(document.line), document.id, query.id, seen->second);
  }
}

// None unless all of the document's queries are in the output already.
std::optional<AuditRow> AuditCoordinator::stored_row(const Document& document) const {
  std::vector<AuditLine> lines;
  for (const Query& query : document.queries) {
    const auto stored = stored_.find(AnswerKey{document.id, query.id});
    if (stored == stored_.end()) return std::nullopt;
    lines.push_back(stored->second);
  }
  return row_of(lines);
}

AuditCoordinator::OpenRow& AuditCoordinator::open_row(std::int64_t number) {
  const auto row = std::ranges::find(open_, number, &OpenRow::number);
  STARATTN_CHECK(row != open_.end());
  return *row;
}

// The table has its documents in input order.
void AuditCoordinator::say_rows() {
  for (; !open_.empty() && (open_.front().row || open_.front().is_left_out); open_.pop_front()) {
    if (open_.front().is_left_out) continue;
    rows_.push_back(*open_.front().row);
    std::cout << to_table_line(rows_.back()) << std::flush;
  }
}

}  // namespace starattn
