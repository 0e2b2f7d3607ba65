// SPDX-License-Identifier: Apache-2.0
// One repeat of one operation of a study, and the files that hold them: JSON Lines, the first line
// the head of the study, and CSV without a head. docs/metrics.md has every key. Numbers without
// units: tokens, seconds, bytes, floating-point operations.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "run/profile.h"

namespace starattn {

inline constexpr const char* kStudySchema = "starattn-bench-1";

// Seconds of the ranks in one phase.
struct RankSeconds {
  double min = 0;
  double mean = 0;
  double max = 0;
  int slowest = 0;  // rank
};

struct Measurement {
  std::int64_t n_ranks = 0;
  std::int64_t n_context = 0;
  std::string setting;  // as StudyPoint has it
  std::string anchor;   // "broadcast" or "recompute"
  std::int64_t block_size = 0, anchor_size = 0, reach = 0, recall = 0, recall_rows = 0;
  std::string operation;          // "phase-1", or "step" of phase 2
  std::int64_t n_queries = 0;     // of a step; 0 in phase 1
  std::int64_t n_new_tokens = 0;  // of each query
  std::int64_t repeat = 0;        // from 0
  double seconds = 0;             // of the slowest rank; of a step the mean over new tokens
  double flop = 0;                // phase 1: of all ranks
  double slowest_flop = 0;        // of the rank with most
  std::int64_t read_bytes = 0;    // a step, at least: weights once, and all keys and values
  std::int64_t moved_bytes = 0;   // between ranks, all together; of a step for all its new tokens
  double least_wait = 0;          // seconds of a rank for others' keys and values
  double most_wait = 0;           // of another
  std::int64_t peak_bytes = 0;    // of a rank: of its GPU, or of its process
  double product_rate = 0;        // operations a second of all ranks' products, before the point
  std::string digest;             // of what was computed: logits and tokens
  std::optional<bool> is_right;   // whether it has the bits of what it was compared with
  std::map<std::string, RankSeconds> phases;  // by name; not in CSV
  std::optional<Profile> profile;             // with --profile; not in CSV, and not read back
  Ceilings ceilings;                          // of the profile

  // Two of one key have one digest, on any number of ranks, if their studies are of one model,
  // device and version.
  std::string result_key() const;
};

std::string to_line(const Measurement& one);      // JSON, without line end
std::string to_csv_line(const Measurement& one);  // without line end
std::string csv_head();

struct Study {
  Json head;
  std::vector<Measurement> measurements;
};

// True where the first line of the text is the head of a study.
bool is_study(std::string_view first_line);
// Throws Error(bad_data | no_input) naming line and key.
Study read_study(const std::string& path);

}  // namespace starattn
