// SPDX-License-Identifier: Apache-2.0
// What a document and its queries need in memory on the ranks of its group, in both phases, and
// what that leaves for queries in work.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "run/document_task.h"
#include "run/loaded_model.h"
#include "star/cost.h"

namespace starattn {

class DocumentNeeds {
 public:
  DocumentNeeds(const LoadedModel& model, const BlockPlan& plan, AnchorMode anchor_mode,
                KvMemory kv_memory, AnswerLayout layout, std::span<const QueryTask> queries);

  // In the phase that needs more: phase 2 with its largest query alone.
  std::uint64_t beside_weights(Rank rank) const;
  std::uint64_t beside_weights(std::span<const Rank> ranks) const;  // of them together
  std::uint64_t host_kv(std::span<const Rank> ranks) const;         // pinned, beside the above

  // Of phase 1's fullest rank.
  const MemoryNeed& fullest() const { return starattn::fullest(phase1_); }
  // "weights 19.5 MiB + own KV 6.0 MiB + ... = 90.1 MiB; phase 2 ..."
  std::string arithmetic() const;

  // What K and V of this rank's queries in work may take, when each of the ranks that share its
  // device has `share` bytes beside the weights and the ranks with queries get what is left, alike.
  std::uint64_t room_for_queries(Rank rank, std::span<const Rank> sharers,
                                 std::uint64_t share) const;

 private:
  bool has_queries(Rank rank) const {
    return layout_.spread_queries || layout_.has_shares() || rank == 0;
  }
  std::uint64_t answering(Rank rank) const {  // without the queries' K and V
    return phase1_[static_cast<std::size_t>(rank)].own_kv +
           workspaces_[static_cast<std::size_t>(rank)];
  }

  AnswerLayout layout_;
  std::vector<MemoryNeed> phase1_;         // by rank
  std::vector<std::uint64_t> workspaces_;  // of phase 2, by rank
  std::uint64_t largest_query_ = 0;        // its K and V; 0 without queries
};

}  // namespace starattn
