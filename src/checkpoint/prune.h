// SPDX-License-Identifier: Apache-2.0
// Giving disk space back: whole documents go by rule, never one that a process has open, never a
// file that is not recognisably ours.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/store.h"

namespace starattn {

// A document goes when any of the rules says so; with none set, only leftovers of dead writers go.
struct PruneRules {
  bool incomplete = false;                           // blocks missing, or it cannot be read
  std::optional<double> older_than_seconds{};        // since it was last written
  std::optional<std::uint64_t> keep_newest_bytes{};  // the newest up to this sum stay
  bool dry_run = false;
};

struct PruneResult {
  struct Document {
    DocumentSummary summary;
    std::string reason;  // why it went, or why it stayed although a rule wanted it gone
  };
  std::vector<Document> removed;  // with dry_run: what would go
  std::vector<Document> kept;     // in use, changed meanwhile, or holding files that are not ours
  std::vector<Document> failed;   // locked for too long, or the system refused; the reason says it
  int n_temporaries = 0;          // leftovers removed from documents that stay
  std::uint64_t freed_bytes = 0;
};

// now_unix: seconds since 1970. What goes wrong with one document does not keep the others from
// going: it is among the failed.
PruneResult prune(const CheckpointStore& store, const PruneRules& rules, std::int64_t now_unix);

}  // namespace starattn
