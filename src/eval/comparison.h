// SPDX-License-Identifier: Apache-2.0
// Trials as a table: one cell for each task, length and setting, with what the setting loses
// against exact attention and what it gains in time. Both are paired: sample by sample.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "eval/scoring.h"
#include "eval/trial.h"

namespace starattn {

// A mean with its 95 % interval; n = 0: unknown.
struct Estimate {
  std::int64_t n = 0;
  double mean = 0;
  double low = 0;
  double high = 0;
};

// The mean of a - b over pairs of scores. Interval of Agresti and Min (Statistics in Medicine 24,
// 2005): two pairs are added that cancel, so that a few equal pairs do not look like certainty.
Estimate paired_difference(const std::vector<std::pair<double, double>>& pairs);

// The geometric mean of a / b over pairs of positive seconds, with Student's interval of the
// logarithms; of a single pair it is not finite.
Estimate paired_ratio(const std::vector<std::pair<double, double>>& pairs);

struct Cell {
  std::string task;
  std::int64_t length = 0;
  std::string setting;
  bool is_exact = false;
  Estimate score;                // Wilson's interval
  double n_right = -1;           // vt: mean variables right before the first miss; else -1
  bool has_speeds = true;        // false where ranks shared a device: then none of them means much
  double tokens_per_second = 0;  // context tokens over the seconds of phase 1
  double ms_per_token = 0;       // phase 2, the question's tokens included in the time
  Estimate difference;           // score, less that of exact attention on the same samples
  // Phase 1 of exact attention over this one's, the same samples, on as many ranks.
  Estimate speedup;
  std::string faster_than;   // the exact setting; empty where none ran on as many ranks
  std::int64_t n_ranks = 0;  // both ran on; 0: several numbers
};

class Comparison {
 public:
  void add(Trial trial);  // a second trial of the same document and setting is ignored

  // Tasks and settings in the order in which they came, lengths ascending.
  std::vector<Cell> cells() const;
  Cell cell(const std::string& task, std::int64_t length, const std::string& setting) const;

  // What is worse here than in `before`, one line each: a score whose paired difference lies below
  // 0 with its whole interval, a speedup whose interval lies more than 5 % below the old one's.
  // n_compared: cells that both have.
  std::vector<std::string> regressions(const Comparison& before, std::int64_t& n_compared) const;

 private:
  struct Key {
    std::string task;
    std::int64_t length = 0;
    std::string setting;
    auto operator<=>(const Key&) const = default;
  };
  using Samples = std::map<std::string, Trial>;  // by document

  const Samples* exact_of(const Key& key) const;
  void compare_speed(const Key& key, Cell& cell) const;
  Cell cell(const Key& key) const;

  std::vector<std::string> tasks_;
  std::vector<std::string> settings_;
  std::string exact_;  // the first exact setting
  std::map<Key, Samples> samples_;
};

}  // namespace starattn
