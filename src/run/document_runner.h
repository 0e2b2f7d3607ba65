// SPDX-License-Identifier: Apache-2.0
// One document through both phases, on one group of ranks.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "run/checkpointed_encoder.h"
#include "run/document_needs.h"
#include "run/document_task.h"
#include "run/loaded_model.h"
#include "run/option_parts.h"
#include "run/progress.h"
#include "run/stop_search.h"
#include "run/thinking.h"
#include "star/answer.h"
#include "star/plan.h"

namespace starattn {

class DocumentRunner {
 public:
  // poll: called every now and then in both phases. says_documents: a line for each, with its plan.
  // Arguments outlive this.
  DocumentRunner(const DocumentOptions& options, const Ranks& ranks, LoadedModel& model,
                 std::function<void()> poll, Progress& progress, bool says_documents);

  // Collective over the group, as all that follow. Throws AgreedError: usage, bad_data for a plan
  // that cannot be, or one without room in memory.
  BlockPlan plan(const DocumentTask& task, const PlanRequest& request) const;
  // Phase 1, or what a checkpoint has of it; complete_only: nothing else than that.
  DocumentKv encode(const DocumentTask& task, const BlockPlan& plan, bool complete_only = false);
  // For an Answerer of queries over what encode() gave last. They outlive it.
  AnswerOptions answer_options(const DocumentTask& task, std::span<const QueryTask> queries,
                               const BlockPlan& plan) const;

  // Throws AgreedError(bad_data) where values of a query overflowed; results: the Answerer's.
  void refuse_overflow(std::span<const QueryTask> queries,
                       std::span<const QueryResult> results) const;

  // What the tokens say, up to the first stop string of the query.
  std::string text_of(const QueryTask& query, std::span<const Token> tokens) const;
  // The same, told apart from what was thought before, where --thinking says so.
  Thought thought_of(const QueryTask& query, std::span<const Token> tokens) const;

 private:
  StopSearch search_of(const QueryTask& query) const;
  Guide guide_of(const QueryTask& query) const;
  void say(const DocumentTask& task, const BlockPlan& plan, const DocumentNeeds& needs);
  DocumentNeeds needs(std::span<const QueryTask> queries, const BlockPlan& plan,
                      KvMemory kv_memory) const;
  KvMemory kv_memory_for(const DocumentTask& task, const BlockPlan& plan) const;

  const DocumentOptions& options_;
  const Ranks& ranks_;
  LoadedModel& model_;
  std::function<void()> poll_;
  CheckpointedEncoder store_;
  Progress& progress_;
  bool says_documents_;
  KvMemory kv_memory_ = KvMemory::device;  // of the document that encode() gave last
  std::uint64_t most_said_ = 0;            // bytes of the last memory line
};

// Throws Error(bad_data) where a document's plan has no room in the memory of this rank's node or
// GPU, alone or with its largest query.
void refuse_too_large(const DocumentOptions& options, const LoadedModel& model,
                      const BlockPlan& plan, std::span<const QueryTask> queries);

// "document 'a': 8,192 tokens, 4 blocks of 2,048 (auto), anchor 2,048, 1 query"
std::string describe(const DocumentTask& task, const BlockPlan& plan, const MethodOptions& options);

}  // namespace starattn
