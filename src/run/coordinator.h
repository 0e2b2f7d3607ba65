// SPDX-License-Identifier: Apache-2.0
// Rank 0's side of a batch: lines of the input become jobs, finished lines go to the output. Each
// line is parsed here, once; but the requests of a batch file are read through first, and those
// with equal contexts become one job.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/answer_sink.h"
#include "io/document.h"
#include "io/line_reader.h"
#include "run/job.h"
#include "run/loaded_model.h"
#include "run/options.h"
#include "run/progress.h"
#include "run/request_index.h"
#include "run/seen_ids.h"

namespace starattn {

class Coordinator : public WorkSource<Job, AnswerLine> {
 public:
  // has_output: false for `encode`, which writes no answers. Throws as LineReader and AnswerWriter.
  // progress outlives this.
  Coordinator(const Options& options, const LoadedModel& model, bool has_output,
              Progress& progress);

  // The next line with a query to answer; lines that are no document are reported and passed over.
  // None, once and for all, when this process or who asks has had a stop signal, or a group has
  // stopped or broken.
  std::optional<Job> next(bool is_asked_to_stop) override;
  void take(AnswerLine answer) override;
  void commit() override;
  void failed(std::int64_t number, const Error& error) override;
  void stopped(const std::string& saved) override;
  void broken(const Error& error) override;
  Exit finish();

 private:
  // An answer that is to come.
  struct OpenAnswer {
    std::string id;  // the document's
    std::string query_id;
    std::int64_t line = 0;  // of the input
  };
  struct OpenJob {
    std::string id;                              // for an error line
    std::map<std::int64_t, OpenAnswer> answers;  // by the query's index in the document
  };

  std::int64_t n_documents_of_shard() const;
  std::optional<Line> next_line();
  std::optional<Job> job_of(const Line& line);
  void failed_requests(std::int64_t number, std::optional<std::int64_t> query,
                       const std::string& error);
  void index_requests();
  void index_request(const Line& line);
  std::optional<Job> next_requests();
  bool is_of_shard(std::int64_t number) const { return number % n_shards_ == shard_; }
  void end_early(Exit exit);
  std::string error_line(std::int64_t line, const std::string& id, const std::string& error) const;
  void report_bad_line(std::int64_t line, const std::string& id, const std::string& error,
                       bool is_expected);
  void count_bad_line();

  const Options& options_;
  Progress& progress_;
  LineReader reader_;
  std::unique_ptr<RequestIndex> requests_;  // of a batch file
  bool is_indexed_ = false;                 // it has been read through
  std::unique_ptr<AnswerSink> writer_;      // none without output
  SeenIds seen_;
  std::int64_t shard_ = 0;
  std::int64_t n_shards_ = 1;
  std::map<std::int64_t, OpenJob> open_;  // by number; where answers are to come
  std::optional<Exit> ended_early_;       // no new document; with this exit code
  std::string saved_;                     // what groups said when they stopped
  std::int64_t n_jobs_ = 0;               // of requests
  std::int64_t n_bad_ = 0;
  std::int64_t n_answers_ = 0;
  std::int64_t n_skipped_ = 0;
  std::int64_t n_scores_ = 0;
  double score_ = 0;
  std::uint64_t digest_ = 0;  // of all new answers, whatever their order
};

}  // namespace starattn
