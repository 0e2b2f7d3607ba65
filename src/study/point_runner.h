// SPDX-License-Identifier: Apache-2.0
// Both phases over one point of a study, timed.
#pragma once

#include <span>
#include <vector>

#include "run/loaded_model.h"
#include "run/option_parts.h"
#include "star/encode.h"
#include "study/measurement.h"
#include "study/sweep.h"

namespace starattn {

class PointRunner {
 public:
  // profiles: measurements say where time goes. answering: of the ranks' group. Arguments outlive
  // this.
  PointRunner(const DocumentOptions& options, bool profiles, const Ranks& ranks, LoadedModel& model,
              Answering& answering);

  // Phase 1 of the point, then a step for each number of queries, unless the anchor is computed
  // again: that is for comparison. Throws AgreedError(io) where a file of the weights has changed.
  // What was measured, without repeat, product rate and is_right.
  // Collective; complete on the first rank.
  std::vector<Measurement> run(const StudyPoint& point, std::span<const int> n_queries,
                               std::int64_t n_new_tokens);

 private:
  KvMemory kv_memory(const BlockPlan& plan) const;
  Measurement encode(const StudyPoint& point, std::span<const Token> context, DocumentKv& kv);
  Measurement step(const StudyPoint& point, const DocumentKv& kv, int n_queries,
                   std::int64_t n_new_tokens);
  std::string digest_of_logits(const DocumentKv& kv);
  AnswerOptions answer_options() const;
  Measurement measured(const StudyPoint& point, double seconds) const;

  const DocumentOptions& options_;
  bool profiles_;
  const Ranks& ranks_;
  LoadedModel& model_;
  Answering& answering_;
  Encoder encoder_;
};

}  // namespace starattn
