// SPDX-License-Identifier: Apache-2.0
// A batch's documents on one group of ranks, one at a time: its line becomes tokens, phase 1
// encodes them, phase 2 answers the queries, and answers go back as lines.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "io/answer.h"
#include "run/batch.h"
#include "run/document_runner.h"
#include "run/job.h"
#include "run/thinking_limit.h"

namespace starattn {

class GroupRun {
 public:
  // Arguments outlive this.
  GroupRun(const Options& options, const Ranks& ranks, LoadedModel& model, JobQueue& queue,
           Work work, Progress& progress);

  // Collective over the group; the job is on its first rank.
  void work_on(const Job* job);

  // Tokens of the contexts this group has encoded or loaded; on its first rank.
  std::int64_t n_context_tokens() const { return n_context_tokens_; }
  // Bytes of its texts that the vocabulary has no token for; on its first rank.
  std::int64_t n_dropped_bytes() const { return n_dropped_bytes_; }

 private:
  using MakeAnswer = FunctionRef<Answer(const QueryTask& query, const QueryResult& result)>;

  DocumentTask task_of(const Job& job);
  void encode_and_answer(DocumentTask& task, const Job* job);
  BlockPlan plan(DocumentTask& task, const Job* job);
  std::vector<QueryTask> ask(const DocumentTask& task, const std::vector<QueryTask>& queries,
                             const BlockPlan& plan, const DocumentKv& kv, const Job* job,
                             MakeAnswer make_answer);
  std::vector<TokenLogprobs> logprobs_of(Answerer& answerer, QueryTask query,
                                         const std::vector<Token>& tokens) const;
  std::vector<Token> shared_tokens(const QueryResult& result) const;
  void report_overflow(const DocumentTask& task, std::span<const QueryTask> queries,
                       std::span<const QueryResult> results, const Job* job);
  void report(const Job* job, std::int64_t query, const std::string& error);

  const Options& options_;
  const Ranks& ranks_;
  LoadedModel& model_;
  JobQueue& queue_;
  Work work_;
  Progress& progress_;
  DocumentRunner runner_;
  ThinkingLimit thinking_limit_;
  std::int64_t n_context_tokens_ = 0;
  std::int64_t n_dropped_bytes_ = 0;
  std::int64_t n_left_ = 0;  // queries of this document that were not begun
};

}  // namespace starattn
