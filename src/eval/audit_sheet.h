// SPDX-License-Identifier: Apache-2.0
// Documents answered twice, exactly and with the settings under audit: what a batch of them says,
// and how sure that is. The document is the unit of chance: answers to one document, and tokens of
// one answer, go right or wrong together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/comparison.h"
#include "eval/timing_basis.h"

namespace starattn {

struct AuditRow {
  std::string id;
  std::int64_t n_context = 0;    // tokens
  std::int64_t n_queries = 0;    // answers
  std::int64_t n_positions = 0;  // tokens of the exact answers
  double kl_sum = 0;             // nats, over positions
  double kl_max = 0;
  std::int64_t n_same_top = 0;     // positions
  std::int64_t n_same_tokens = 0;  // answers, token by token
  std::int64_t n_same_text = 0;    // answers, white space around them left out
  double exact_seconds = 0;        // phase 1
  double star_seconds = 0;
  TimingBasis exact_basis, star_basis;

  double kl_mean() const;  // over positions
};

// Of one number a document: Student's t over documents, cut at 0. Of a single document the interval
// is not finite.
Estimate mean_over_documents(const std::vector<double>& values);

// Of a share with `hits` of `n` (0 < n) in each document, pooled: Wilson's interval with n replaced
// by the effective sample size mean (1 - mean) / variance, the variance being the ratio estimator's
// between documents; at least the number of documents and at most all n.
struct Hits {
  std::int64_t hits = 0;
  std::int64_t n = 0;
};
Estimate share_over_documents(const std::vector<Hits>& documents);

struct AuditSummary {
  std::int64_t n_documents = 0;
  std::int64_t n_queries = 0;
  std::int64_t n_positions = 0;
  Estimate kl;  // mean of the documents' means
  double kl_max = 0;
  Estimate same_top;
  Estimate same_tokens;
  Estimate same_text;
  double exact_seconds = 0;
  double star_seconds = 0;
  bool is_speed_comparable = true;  // each document's both times are of equal means
  bool shares_device = false;       // somewhere
  std::int64_t n_ranks = 0;         // the most that a document had in both

  double speed_ratio() const { return star_seconds > 0 ? exact_seconds / star_seconds : 0; }
};

AuditSummary summarise(const std::vector<AuditRow>& rows);

// For people: the head and a document's line as they come, the batch at the end.
std::string audit_table_head();
std::string to_table_line(const AuditRow& row);
std::string to_table(const AuditSummary& summary);

}  // namespace starattn
