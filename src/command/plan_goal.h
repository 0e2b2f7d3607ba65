// SPDX-License-Identifier: Apache-2.0
// plan with a goal: of several settings and numbers of ranks those that meet a deadline or a score,
// with modelled times (simulate/schedule.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "eval/comparison.h"
#include "simulate/schedule.h"

namespace starattn {

struct Goal {
  double deadline = 0;   // seconds for everything; 0: none
  double min_score = 0;  // share of the exact setting's score; 0: none
  int most_ranks = 1;
  Experience experience;
  std::uint64_t memory_bytes = 0;  // of a rank; 0: not known
  std::vector<std::string>
      settings;  // to choose from, as in eval; none: those of the scores, or ours
  std::vector<std::string> scores;  // files that eval has written
};

// What is to be done: documents of these lengths, each with the same queries.
struct Work {
  std::vector<std::int64_t> lengths;  // of the contexts
  std::int64_t n_queries = 1;
  std::int64_t n_query_tokens = 64;
  std::int64_t n_new_tokens = 128;
};

// One setting, on the fewest ranks that meet the goal, or else on those that are fastest.
struct Choice {
  std::string setting;
  BlockPlan plan;            // of the longest document
  int n_ranks = 1;           // of the job
  int group = 1;             // of them on one document
  double seconds = 0;        // of the whole work, loading aside
  std::uint64_t memory = 0;  // bytes of the fullest rank, in the phase that needs more
  bool fits = true;
  double sees = 0;              // pairs that attention sees, share of the exact one's
  std::optional<double> score;  // share of the exact one's
  bool is_on_front = false;     // no other is as fast and as good
  bool meets = false;

  double rank_hours() const { return n_ranks * seconds / 3600; }
};

// In the order of their seconds. weight_bytes: of a rank. Throws Error(usage | bad_data |
// no_input).
std::vector<Choice> choices(const ModelConfig& config, const Machine& machine,
                            const Cluster& cluster, const Goal& goal, const Work& work,
                            std::uint64_t weight_bytes);
// Of those that meet the goal the best by score, or by what it sees, within a deadline; without one
// the fastest. Null where none does.
const Choice* best(const std::vector<Choice>& all, const Goal& goal);

std::string to_table(const std::vector<Choice>& all);
// The command that submits it. ranks_per_node: 0: all on one.
std::string sbatch_line(const Choice& choice, int ranks_per_node);

}  // namespace starattn
