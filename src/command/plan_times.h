// SPDX-License-Identifier: Apache-2.0
// What a machine file makes of a plan: seconds of both phases, and of the same with a slow rank, as
// an exact ring, and with both merges of phase 2.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "simulate/schedule.h"

namespace starattn {

struct TimesRequest {
  Cluster cluster;
  Phase1Options phase1;
  AnswerLayout layout;
  std::vector<std::int64_t> n_queries = {1};  // that come together; several: each by itself
  std::int64_t n_query_tokens = 64;
  std::int64_t n_new_tokens = 128;
  Experience experience;
  double slow = 1.5;  // how many times as long a slow rank takes
};

struct PlanTimes {
  Simulated phase1;
  std::vector<std::pair<std::int64_t, SimulatedAnswers>> answers;  // by the number of queries
};
PlanTimes times_of(const TimesRequest& request, const ModelConfig& config, const BlockPlan& plan,
                   const Machine& machine);
std::string to_text(const PlanTimes& times, const TimesRequest& request);
Json to_json(const PlanTimes& times);

struct PlanStudy {
  struct Step {
    std::int64_t n_rows = 1;
    Simulated gather, tree;
  };
  Simulated as_planned;
  Simulated with_slow_rank;       // the last one
  std::optional<Simulated> ring;  // exact, its default blocks; none on one rank
  std::vector<Step> steps;        // a row a query
};
PlanStudy study_of(const TimesRequest& request, const ModelConfig& config, const BlockPlan& plan,
                   const Machine& machine);
std::string to_text(const PlanStudy& study, const TimesRequest& request);
Json to_json(const PlanStudy& study);

}  // namespace starattn
