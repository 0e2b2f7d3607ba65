// SPDX-License-Identifier: Apache-2.0
#include "run/document_needs.h"

#include <algorithm>

#include "base/text.h"

namespace starattn {

DocumentNeeds::DocumentNeeds(const LoadedModel& model, const BlockPlan& plan,
                             AnchorMode anchor_mode, KvMemory kv_memory, AnswerLayout layout,
                             std::span<const QueryTask> queries)
    : layout_(layout) {
  const Backend& backend = *model.backend;
  phase1_ = memory_needs(model.config, plan, anchor_mode, model.weight_bytes, backend.kv_dtype(),
                         backend.activation_dtype(), backend.chunk_rows(), kv_memory);
  workspaces_ = answer_workspaces(model.config, plan, layout, backend.kv_dtype(),
                                  backend.activation_dtype(), backend.chunk_rows());
  for (const QueryTask& query : queries) {
    largest_query_ =
        std::max(largest_query_, query_kv_bytes(model.config, std::ssize(query.job.tokens),
                                                query.job.max_new_tokens,
                                                backend.activation_dtype(), layout.n_shares));
  }
}

std::uint64_t DocumentNeeds::beside_weights(Rank rank) const {
  const MemoryNeed& first = phase1_[static_cast<std::size_t>(rank)];
  const std::uint64_t query = has_queries(rank) ? largest_query_ : 0;
  return std::max(first.total() - first.weights, answering(rank) + query);
}

std::uint64_t DocumentNeeds::beside_weights(std::span<const Rank> ranks) const {
  std::uint64_t sum = 0;
  for (const Rank rank : ranks) sum += beside_weights(rank);
  return sum;
}

std::uint64_t DocumentNeeds::host_kv(std::span<const Rank> ranks) const {
  std::uint64_t sum = 0;
  for (const Rank rank : ranks) sum += phase1_[static_cast<std::size_t>(rank)].host_kv;
  return sum;
}

std::string DocumentNeeds::arithmetic() const {
  std::string text = fullest().arithmetic();
  if (largest_query_ > 0) {
    text += fmt::format("; phase 2 on rank 0: workspace {} and {} for the largest query",
                        human_bytes(workspaces_.front()), human_bytes(largest_query_));
  }
  return text;
}

std::uint64_t DocumentNeeds::room_for_queries(Rank rank, std::span<const Rank> sharers,
                                              std::uint64_t share) const {
  if (!has_queries(rank)) return 0;
  std::uint64_t taken = 0;
  std::uint64_t n_query_ranks = 0;
  for (const Rank sharer : sharers) {
    taken += answering(sharer);
    n_query_ranks += has_queries(sharer) ? 1 : 0;
  }
  const std::uint64_t all = share * sharers.size();
  return all > taken ? (all - taken) / n_query_ranks : 0;
}

}  // namespace starattn
