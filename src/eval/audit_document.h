// SPDX-License-Identifier: Apache-2.0
// One document under audit, on one group of ranks. One KV cache is in memory at a time; of the
// exact pass the logits stay, 4 bytes a vocabulary entry and answer token.
#pragma once

#include <functional>
#include <vector>

#include "eval/audit.h"
#include "eval/audit_line.h"
#include "io/document.h"
#include "run/document_runner.h"

namespace starattn {

class DocumentAuditor {
 public:
  // poll: called every now and then in both phases. Arguments outlive this.
  DocumentAuditor(const AuditOptions& options, const Ranks& ranks, LoadedModel& model,
                  std::function<void()> poll, Progress& progress);

  // document: on the group's first rank, which gets a line a query; null elsewhere. Collective
  // over the group; throws AgreedError.
  std::vector<AuditLine> audit(const Document* document);

 private:
  struct Pass;  // an encoded document and its answers

  Pass encode_and_answer(const DocumentTask& task, const PlanRequest& request);
  void check_logits_memory(const DocumentTask& task) const;

  const AuditOptions& options_;
  const Ranks& ranks_;
  LoadedModel& model_;
  Progress& progress_;
  DocumentRunner runner_;
  bool is_warm_ = false;
};

}  // namespace starattn
