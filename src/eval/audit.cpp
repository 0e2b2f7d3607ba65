// SPDX-License-Identifier: Apache-2.0
// The batch around DocumentAuditor: rank 0 draws the sample, hands each group of ranks a line, and
// writes down what comes back before it hands out the next.
#include "eval/audit.h"

#include <iostream>
#include <map>
#include <memory>

#include "base/log.h"
#include "eval/audit_document.h"
#include "eval/line_sample.h"
#include "io/answer_writer.h"
#include "io/line_reader.h"
#include "mpi/runtime.h"
#include "run/model_settings.h"
#include "run/watchdog.h"

namespace starattn {
namespace {

Json settings_of(const AuditOptions& options, const LoadedModel& session) {
  const Options& run = options.run;
  Json json = model_settings(run, session);
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

// Rank 0's side.
class AuditDesk {
 public:
  AuditDesk(const AuditOptions& options, const LoadedModel& session)
      : options_(options),
        chosen_(sample_of(options)),
        reader_(options.run.input),
        writer_(options.run.output, settings_of(options, session), options.run.overwrite,
                [](const Json& line, const std::string& where) { audit_line_of(line, where); }) {
    if (chosen_.empty()) fail(Exit::bad_data, "{}: no document in it", options.run.input);
    LineReader lines(options.run.output);
    while (const auto line = lines.next()) {
      AuditLine one =
          parse_audit_line(line->text, fmt::format("{}:{}", options.run.output, line->number));
      stored_[one.id].push_back(std::move(one));
    }
    log::info("{}: {} document(s) drawn, seed {}", options.run.input, chosen_.size(), options.seed);
    std::cout << audit_table_head();
  }

  // The next document of the sample that no earlier run has finished; none at the end.
  std::optional<Line> next() {
    while (!is_stopped_ && n_given_ < chosen_.size()) {
      const std::optional<Line> line = reader_.next();
      if (!line) fail(Exit::io, "{} became shorter while it was read", options_.run.input);
      if (line->index != chosen_[n_given_]) continue;
      ++n_given_;
      try {
        const Document document = parse_document(line->text, line->number, where(line->number));
        refuse_repeated(document);
        if (!take_over(document)) return line;
      } catch (const Error& error) {
        report_bad(error.what());
      }
    }
    return std::nullopt;
  }

  void take(std::int64_t number, const std::vector<AuditLine>& lines) {
    for (const AuditLine& line : lines) {
      writer_.expect(line.id, line.query_id);
      if (!writer_.is_answered(line.id, line.query_id))
        writer_.put(line.id, line.query_id, to_line(line));
    }
    if (lines.empty()) fail(Exit::bug, "{}: no line came back", where(number));
    add(row_of(lines));
  }

  void report_bad(const std::string& error) {
    log::error("{}", error);
    ++n_bad_;
  }
  void stop() { is_stopped_ = true; }

  Exit finish() {
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

 private:
  std::string where(std::int64_t line) const {
    return fmt::format("{}:{}", options_.run.input, line);
  }

  // Answers are known by document and query: of two lines that share one, the later is refused.
  void refuse_repeated(const Document& document) {
    for (const Query& query : document.queries) {
      const auto [seen, is_new] = line_of_.emplace(std::pair(document.id, query.id), document.line);
      if (is_new || seen->second == document.line) continue;
      fail(Exit::bad_data,
           "{}: document '{}', query '{}' was there before, in line {}: answers could not be told "
           "apart",
           where(document.line), document.id, query.id, seen->second);
    }
  }

  // True when all of the document's queries are in the output already.
  bool take_over(const Document& document) {
    const auto stored = stored_.find(document.id);
    if (stored == stored_.end() || stored->second.size() < document.queries.size()) return false;
    for (const Query& query : document.queries) {
      if (!writer_.is_answered(document.id, query.id)) return false;
    }
    for (const Query& query : document.queries) writer_.expect(document.id, query.id);
    add(row_of(stored->second));
    return true;
  }

  void add(const AuditRow& row) {
    std::cout << to_table_line(row) << std::flush;
    rows_.push_back(row);
  }

  const AuditOptions& options_;
  std::vector<std::int64_t> chosen_;  // line indices, ascending
  LineReader reader_;
  AnswerWriter writer_;
  std::map<std::pair<std::string, std::string>, std::int64_t> line_of_;  // of (id, query_id)
  std::map<std::string, std::vector<AuditLine>> stored_;  // of an earlier run, by document
  std::vector<AuditRow> rows_;
  std::size_t n_given_ = 0;
  std::int64_t n_bad_ = 0;
  bool is_stopped_ = false;
};

// What this rank brings back: its group's lines, or why there are none.
std::string report_of(DocumentAuditor& auditor, const std::string& text, std::int64_t number) {
  Json report = {{"lines", Json::array()}, {"error", ""}, {"is_data", true}, {"stop", false}};
  try {
    if (number > 0) {
      for (const AuditLine& line : auditor.audit(text, number))
        report["lines"].push_back(to_line(line));
    }
  } catch (const AgreedError& error) {
    report["error"] = error.what();
    report["is_data"] = error.exit() == Exit::bad_data || error.exit() == Exit::no_input;
    report["exit"] = static_cast<int>(error.exit());
  }
  report["stop"] = stop_requested();
  return to_line(report);
}

// A document at fault is said and left out; any other error ends the audit.
void take(AuditDesk& coordinator, const std::vector<std::string>& reports, const Ranks& ranks,
          const std::vector<std::int64_t>& numbers) {
  for (std::size_t rank = 0; rank < reports.size(); ++rank) {
    const Json report = parse_json(reports[rank], "report");
    if (report["stop"].get<bool>()) coordinator.stop();
    const auto group = rank / static_cast<std::size_t>(ranks.group.size());
    const bool is_leader = rank % static_cast<std::size_t>(ranks.group.size()) == 0;
    const std::string error = report["error"].get<std::string>();
    if (!error.empty() && !report["is_data"].get<bool>())
      throw Error(static_cast<Exit>(report["exit"].get<int>()), error);
    if (!is_leader || group >= numbers.size() || numbers[group] == 0) continue;
    if (!error.empty()) {
      coordinator.report_bad(error);
      continue;
    }
    std::vector<AuditLine> lines;
    for (const Json& line : report["lines"])
      lines.push_back(parse_audit_line(line.get<std::string>(), "report"));
    coordinator.take(numbers[group], lines);
  }
}

}  // namespace

Exit run_audit(const AuditOptions& options) {
  const Ranks ranks = arrange_ranks(options.run);
  const Watchdog watchdog(options.run.timeout, ranks.world.rank());
  const std::unique_ptr<LoadedModel> session = open_session(options.run, ranks);
  print_banner(options.run, ranks, *session);
  std::unique_ptr<AuditDesk> coordinator;
  collectively(ranks.world, [&] {
    options.run.plan_request();
    if (ranks.is_first()) coordinator = std::make_unique<AuditDesk>(options, *session);
  });
  DocumentAuditor auditor(options, ranks, *session);
  for (;;) {
    // A line for each group, as far as there are any; its number is 0 where there is none.
    std::vector<Line> round(static_cast<std::size_t>(ranks.n_groups));
    collectively(ranks.world, [&] {
      if (!coordinator) return;
      for (Line& line : round) line = coordinator->next().value_or(Line{});
    });
    std::vector<std::int64_t> numbers;
    std::string mine;
    for (int g = 0; g < ranks.n_groups; ++g) {
      const Line& line = round[static_cast<std::size_t>(g)];
      numbers.push_back(ranks.world.bcast_value(line.number, 0));
      const std::string text = ranks.world.bcast_text(line.text, 0);
      if (g == ranks.group_index) mine = text;
    }
    if (numbers.front() == 0) break;
    const auto reports = ranks.world.gather_texts(
        report_of(auditor, mine, numbers[static_cast<std::size_t>(ranks.group_index)]), 0);
    collectively(ranks.world, [&] {
      if (coordinator) take(*coordinator, reports, ranks, numbers);
    });
  }
  Exit result = Exit::ok;
  collectively(ranks.world, [&] {
    if (coordinator) result = coordinator->finish();
  });
  return static_cast<Exit>(ranks.world.bcast_value(static_cast<int>(result), 0));
}

}  // namespace starattn
