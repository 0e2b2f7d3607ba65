// SPDX-License-Identifier: Apache-2.0
// Rank 0's side of a batch: lines of the input become jobs, finished lines go to the output.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "batch/answer_writer.h"
#include "batch/line_reader.h"
#include "command/options.h"
#include "command/session.h"
#include "command/work_queue.h"

namespace starattn {

// Of the model and how it is asked, what the answers in one file must agree on.
Json model_settings(const Options& options, const Session& session);

class Desk {
 public:
  // has_output: false for `encode`, which writes no answers. Throws as LineReader and AnswerWriter.
  Desk(const Options& options, const Session& session, bool has_output);

  // The next line with a query to answer; lines that are no document are reported and passed over.
  std::optional<Job> next();
  void answered(std::int64_t seq, std::int64_t query, const std::string& line);
  void failed(std::int64_t seq, const std::string& error);
  // A group left its document early; no new one is started. saved: what it leaves to the rerun.
  void stopped(std::int64_t seq, const std::string& saved);
  Exit finish();

 private:
  struct OpenDocument {
    std::string id;
    std::vector<std::string> query_ids;
  };

  std::optional<Job> job_of(const Line& line);
  void report_bad_line(std::int64_t line, const std::string& id, const std::string& error,
                       bool is_expected);

  const Options& options_;
  LineReader reader_;
  std::unique_ptr<AnswerWriter> writer_;  // none without output
  std::int64_t shard_ = 0;
  std::int64_t n_shards_ = 1;
  std::map<std::int64_t, OpenDocument> open_;  // by line
  bool stopped_ = false;
  bool strict_stop_ = false;
  std::string saved_;  // what groups said when they stopped
  std::int64_t n_bad_ = 0;
  std::int64_t n_answers_ = 0;
  std::int64_t n_skipped_ = 0;
  std::int64_t n_scores_ = 0;
  double score_ = 0;
  Stopwatch since_said_;
};

}  // namespace starattn
