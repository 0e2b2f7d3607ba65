// SPDX-License-Identifier: Apache-2.0
// Answers beside the documents they are about: a score for each task and length.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "benchmark/task.h"
#include "io/document.h"

namespace starattn {

struct ScoreRow {
  std::string task;            // empty: documents that no task of ours has made
  std::int64_t length = 0;     // tokens, as asked for
  std::int64_t n_scored = 0;   // answers
  std::int64_t n_missing = 0;  // questions without an answer, or with an error in its place
  double sum = 0;              // of scores, each 0 to 1

  double mean() const { return n_scored == 0 ? 0 : sum / static_cast<double>(n_scored); }
};

class ScoreSheet {
 public:
  // A line that `generate` wrote counts for its task and length, by that task's rule; any other
  // document's answers by the share of the references that they contain. A question without
  // references is left out. Throws Error(bad_data) naming `where`: no document, or a question that
  // is there already.
  void add_document(std::string_view line, std::int64_t line_number, const std::string& where);
  // A line that `run` wrote; an error line leaves its questions without answer. Throws
  // Error(bad_data): not about a document here, or the second answer to a question.
  void add_answer(std::string_view line, const std::string& where);

  // In the order in which tasks and lengths came.
  std::vector<ScoreRow> rows() const;
  std::int64_t n_without_references() const { return n_without_references_; }

 private:
  struct Question {
    const TaskInfo* task = nullptr;  // none: the user's own
    std::size_t row = 0;
    std::string text;
    std::vector<std::string> references;
    bool is_answered = false;
  };
  std::size_t row_of(const std::string& task, std::int64_t length);

  std::map<std::pair<std::string, std::string>, Question> questions_;  // by document, query
  std::vector<ScoreRow> rows_;
  std::int64_t n_without_references_ = 0;
};

// A table for people: percentages, with Wilson's 95 % interval.
std::string to_table(const std::vector<ScoreRow>& rows);
// [{"task", "length", "n", "missing", "score", "low", "high"}]: shares, 0 to 1.
Json to_json(const std::vector<ScoreRow>& rows);

}  // namespace starattn
