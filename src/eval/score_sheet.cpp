// SPDX-License-Identifier: Apache-2.0
#include "eval/score_sheet.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "eval/scoring.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxLength = std::int64_t{1} << 40;
constexpr std::size_t kMaxLineBytes = std::size_t{1} << 32;

}  // namespace

std::size_t ScoreSheet::row_of(const TaskInfo& task, std::int64_t length) {
  const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const ScoreRow& row) {
    return row.task == task.name && row.length == length;
  });
  if (found != rows_.end()) return static_cast<std::size_t>(found - rows_.begin());
  rows_.push_back({std::string(task.name), length, 0, 0, 0});
  return rows_.size() - 1;
}

void ScoreSheet::add_document(std::string_view line, std::int64_t line_number,
                              const std::string& where) {
  const Document document = parse_document(line, line_number, where);
  const Json json = parse_json(line, where, {kMaxLineBytes, 16});
  if (document.is_published || !json.contains("meta"))
    fail(Exit::bad_data,
         "{}: expected a document with meta.task and meta.length, as generate "
         "writes them",
         where);
  const JsonObject meta(json["meta"], where + ": meta");
  const std::string name = meta.get_string("task");
  const TaskInfo* task = find_task(name);
  if (!task)
    fail(Exit::bad_data, "{}: meta: key 'task': expected one of {}, got '{}'", where, task_names(),
         name);
  const std::size_t row = row_of(*task, meta.get_int("length", 1, kMaxLength));
  for (std::size_t q = 0; q < document.queries.size(); ++q) {
    const Query& query = document.queries[q];
    if (query.answers.empty())
      fail(Exit::bad_data, "{}: query '{}': expected references under 'answers', got none", where,
           query.id);
    const Question question{task, row, question_text(json["queries"][q], query.text), query.answers,
                            false};
    if (!questions_.emplace(std::pair(document.id, query.id), question).second)
      fail(Exit::bad_data, "{}: document '{}', query '{}' is there twice", where, document.id,
           query.id);
    ++rows_[row].n_missing;
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
  const std::string text = answer.get_string(answer.has("answer") ? "answer" : "pred");
  ScoreRow& row = rows_[question.row];
  row.sum += score_answer(*question.task, text, question.references, question.text);
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
    table += fmt::format("{:<16} {:>10} {:>8} {:>8} {:>8}  {:.1f} .. {:.1f}\n", row.task,
                         with_commas(row.length), row.n_scored, row.n_missing, mean,
                         100 * interval.low, 100 * interval.high);
  }
  return table;
}

Json to_json(const std::vector<ScoreRow>& rows) {
  Json all = Json::array();
  for (const ScoreRow& row : rows) {
    const Interval interval = wilson_interval(row.mean(), row.n_scored);
    Json json = {{"task", row.task},         {"length", row.length}, {"n", row.n_scored},
                 {"missing", row.n_missing}, {"score", nullptr},     {"low", interval.low},
                 {"high", interval.high}};
    if (row.n_scored > 0) json["score"] = row.mean();
    all.push_back(std::move(json));
  }
  return all;
}

}  // namespace starattn
