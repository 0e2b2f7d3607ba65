// SPDX-License-Identifier: Apache-2.0
// Rank 0's side of an audit: draws the sample, parses its lines, writes down what comes back, in
// input order, and at the end the table.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "eval/audit.h"
#include "eval/audit_line.h"
#include "io/answer_writer.h"
#include "io/document.h"
#include "io/line_reader.h"
#include "run/loaded_model.h"
#include "run/progress.h"
#include "run/work_queue.h"

namespace starattn {

struct AuditTask {
  std::int64_t number = 0;  // of the line in the input file
  Document document;

  static void fields(auto& task, auto& archive) {
    auto& [number, document] = task;
    archive(number, document);
  }
};

struct AuditResult {
  std::int64_t number = 0;       // the task's
  std::vector<AuditLine> lines;  // one a query

  static void fields(auto& result, auto& archive) {
    auto& [number, lines] = result;
    archive(number, lines);
  }
};

using AuditQueue = WorkQueue<AuditTask, AuditResult>;

class AuditCoordinator : public WorkSource<AuditTask, AuditResult> {
 public:
  // Throws Error(bad_data) for an input without documents, and as LineReader and AnswerWriter.
  // progress hears of documents and answers.
  AuditCoordinator(const AuditOptions& options, const LoadedModel& model, Progress& progress);

  // The next document of the sample that no earlier run has finished.
  std::optional<AuditTask> next(bool is_asked_to_stop) override;
  void take(AuditResult result) override;
  void commit() override { writer_.commit(); }
  void failed(std::int64_t number, const Error& error) override;
  void stopped(const std::string& saved) override;
  void broken(const Error& error) override;
  // Throws what broke the audit.
  Exit finish();

 private:
  using AnswerKey = std::pair<std::string, std::string>;  // document id, query id

  // A document of the table, in input order.
  struct OpenRow {
    std::int64_t number = 0;      // of its line
    std::set<std::string> todo;   // queries whose lines are to be written
    std::optional<AuditRow> row;  // when it is there
    bool is_left_out = false;
  };

  std::string where(std::int64_t line) const;
  void refuse_repeated(const Document& document);
  std::optional<AuditRow> stored_row(const Document& document) const;
  OpenRow& open_row(std::int64_t number);
  void say_rows();

  const AuditOptions& options_;
  Progress& progress_;
  std::vector<std::int64_t> chosen_;  // line indices, ascending
  LineReader reader_;
  std::map<AnswerKey, AuditLine> stored_;  // of an earlier run; filled by writer_
  AnswerWriter writer_;
  std::map<AnswerKey, std::int64_t> line_of_;  // where an answer's key was first
  std::deque<OpenRow> open_;                   // from the first that is not said yet
  std::vector<AuditRow> rows_;                 // that were
  std::size_t n_given_ = 0;                    // of chosen_
  std::int64_t n_bad_ = 0;
  bool is_stopped_ = false;
  std::optional<Error> error_;
};

}  // namespace starattn
