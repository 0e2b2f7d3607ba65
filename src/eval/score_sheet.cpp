// SPDX-License-Identifier: Apache-2.0
#include "eval/score_sheet.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "eval/scoring.h"
#include "io/answer.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxLength = std::int64_t{1} << 40;
constexpr std::size_t kMaxLineBytes = std::size_t{1} << 32;

// The task that made the document; none where it is the user's own, whose `meta` is anything.
const TaskInfo* task_of(const Document& document, const Json& json) {
  if (document.is_published() || !json.contains("meta") || !json["meta"].is_object())
    return nullptr;
  const Json& meta = json["meta"];
  if (!meta.contains("task") || !meta["task"].is_string() || !meta.contains("length"))
    return nullptr;
  return find_task(meta["task"].get<std::string>());
}

}  // namespace

std::size_t ScoreSheet::row_of(const std::string& task, std::int64_t length) {
  const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const ScoreRow& row) {
    return row.task == task && row.length == length;
  });
  if (found != rows_.end()) return static_cast<std::size_t>(found - rows_.begin());
  rows_.push_back({task, length, 0, 0, 0});
  return rows_.size() - 1;
}

void ScoreSheet::add_document(std::string_view line, std::int64_t line_number,
                              const std::string& where) {
  const Document document = parse_document(line, line_number, where);
  const Json json = parse_json(line, where, {kMaxLineBytes});
  const TaskInfo* task = task_of(document, json);
  const std::int64_t length =
      task ? JsonObject(json["meta"], where + ": meta").get_int("length", 1, kMaxLength) : 0;
  for (std::size_t q = 0; q < document.queries.size(); ++q) {
    const Query& query = document.queries[q];
    const std::size_t row = row_of(task ? std::string(task->name) : "", length);
    const std::string text = task ? question_text(json["queries"][q], query.text) : query.text;
    const Question question{task, row, text, query.answers, false};
    if (!questions_.emplace(std::pair(document.id, query.id), question).second)
      fail(Exit::bad_data, "{}: document '{}', query '{}' is there twice", where, document.id,
           query.id);
    ++(query.answers.empty() ? n_without_references_ : rows_[row].n_missing);
  }
}

void ScoreSheet::add_answer(std::string_view line, const std::string& where) {
  const Json json = parse_json(line, where, {kMaxLineBytes, 16});
  const JsonObject answer(json, where);
  if (answer.has("error")) return;
  const std::string id = answer.get_string("id");
  const std::string query_id = answer.get_string("query_id");
  const auto found = questions_.find({id, query_id});
  if (found == questions_.end())
    fail(Exit::bad_data, "{}: no document '{}' with a query '{}' is in the input", where, id,
         query_id);
  Question& question = found->second;
  if (question.is_answered)
    fail(Exit::bad_data, "{}: a second answer to document '{}', query '{}'", where, id, query_id);
  question.is_answered = true;
  if (question.references.empty()) return;
  const std::string text = answer.get_string(answer.has("answer") ? "answer" : "pred");
  ScoreRow& row = rows_[question.row];
  row.sum += question.task ? score_answer(*question.task, text, question.references, question.text)
                           : share_contained(text, question.references);
  ++row.n_scored;
  --row.n_missing;
}

std::vector<ScoreRow> ScoreSheet::rows() const {
  return rows_;
}

std::string to_table(const std::vector<ScoreRow>& rows) {
  std::string table = fmt::format("{:<16} {:>10} {:>8} {:>8} {:>8}  {}\n", "task", "length",
                                  "answers", "missing", "score %", "95 % interval");
  for (const ScoreRow& row : rows) {
    const Interval interval = wilson_interval(row.mean(), row.n_scored);
    const std::string mean = row.n_scored == 0 ? "-" : fmt::format("{:.1f}", 100 * row.mean());
    table += fmt::format("{:<16} {:>10} {:>8} {:>8} {:>8}  {:.1f} .. {:.1f}\n",
                         row.task.empty() ? "your documents" : row.task,
                         row.task.empty() ? "" : with_commas(row.length), row.n_scored,
                         row.n_missing, mean, 100 * interval.low, 100 * interval.high);
  }
  return table;
}

Json to_json(const std::vector<ScoreRow>& rows) {
  Json all = Json::array();
  for (const ScoreRow& row : rows) {
    const Interval interval = wilson_interval(row.mean(), row.n_scored);
    Json json = {{"task", nullptr},          {"length", nullptr}, {"n", row.n_scored},
                 {"missing", row.n_missing}, {"score", nullptr},  {"low", interval.low},
                 {"high", interval.high}};
    if (!row.task.empty()) json["task"] = row.task;
    if (!row.task.empty()) json["length"] = row.length;
    if (row.n_scored > 0) json["score"] = row.mean();
    all.push_back(std::move(json));
  }
  return all;
}

}  // namespace starattn
