// SPDX-License-Identifier: Apache-2.0
#include "command/plan_times.h"

#include <algorithm>

#include "base/text.h"
#include "star/answer.h"

namespace starattn {

PlanTimes times_of(const TimesRequest& request, const ModelConfig& config, const BlockPlan& plan,
                   const Machine& machine) {
  PlanTimes times;
  times.phase1 = simulate_phase1(config, plan, machine, request.cluster, request.phase1);
  times.phase1.seconds *= request.experience.phase1;
  for (const std::int64_t n : request.n_queries)
    times.answers.emplace_back(
        n, simulate_answers(config, plan, machine, request.cluster, n, request.n_query_tokens,
                            request.n_new_tokens, request.layout, request.phase1.kv_memory));
  for (auto& [n, answers] : times.answers) answers.seconds *= request.experience.phase2;
  return times;
}

std::string to_text(const PlanTimes& times, const TimesRequest& request) {
  std::string text = fmt::format(
      "         phase 1 {}; ranks wait {} to {}, {} move\n", human_seconds(times.phase1.seconds),
      human_seconds(times.phase1.least_wait), human_seconds(times.phase1.most_wait),
      human_bytes(static_cast<std::uint64_t>(times.phase1.n_bytes)));
  for (const auto& [n, answers] : times.answers)
    text += fmt::format(
        "         phase 2 {} for {} {} of {} tokens with {} new ones each; {:.2f} ms a step\n",
        human_seconds(answers.seconds), n, n == 1 ? "query" : "queries", request.n_query_tokens,
        request.n_new_tokens, 1e3 * answers.seconds / static_cast<double>(answers.n_steps));
  return text;
}

Json to_json(const PlanTimes& times) {
  Json json = {{"phase_1_seconds", times.phase1.seconds},
               {"phase_1_least_wait_seconds", times.phase1.least_wait},
               {"phase_1_most_wait_seconds", times.phase1.most_wait},
               {"phase_1_moved_bytes", times.phase1.n_bytes},
               {"phase_2", Json::array()}};
  for (const auto& [n, answers] : times.answers)
    json["phase_2"].push_back(
        {{"queries", n}, {"seconds", answers.seconds}, {"steps", answers.n_steps}});
  return json;
}

PlanStudy study_of(const TimesRequest& request, const ModelConfig& config, const BlockPlan& plan,
                   const Machine& machine) {
  Cluster slow = request.cluster;
  slow.slow.emplace_back(plan.n_ranks() - 1, request.slow);
  PlanStudy study;
  study.as_planned = simulate_phase1(config, plan, machine, request.cluster, request.phase1);
  study.with_slow_rank = simulate_phase1(config, plan, machine, slow, request.phase1);
  if (plan.n_ranks() > 1) {
    PlanRequest ring;
    ring.attention = Attention::ring;
    study.ring = simulate_phase1(
        config, BlockPlan::make(ring, plan.n_context(), plan.n_ranks(), config.widest_window()),
        machine, request.cluster);
  }
  for (const std::int64_t n : request.n_queries) {
    const std::int64_t n_rows = std::min(n, Answerer::kMaxRows);
    const auto step = [&](bool tree) {
      return simulate_step(config, plan, machine, request.cluster, {n_rows, {n_rows}},
                           {.tree_merge = tree});
    };
    study.steps.push_back({n_rows, step(false), step(true)});
  }
  return study;
}

std::string to_text(const PlanStudy& study, const TimesRequest& request) {
  const auto row = [](const std::string& what, const Simulated& result) {
    return fmt::format("{:<34}{:>12.4f} s{:>12.4f} s{:>14}\n", what, result.seconds,
                       result.most_wait, human_bytes(static_cast<std::uint64_t>(result.n_bytes)));
  };
  std::string text =
      fmt::format("{:<34}{:>14}{:>14}{:>14}\n", "simulated", "time", "longest wait", "sent");
  text += row("phase 1", study.as_planned);
  text +=
      row(fmt::format("phase 1, one rank {:.3g} x as slow", request.slow), study.with_slow_rank);
  if (study.ring) text += row("phase 1, exact ring", *study.ring);
  for (const PlanStudy::Step& step : study.steps) {
    const std::string what =
        fmt::format("a step of {} row{}", step.n_rows, step.n_rows == 1 ? "" : "s");
    text += row(what + ", gather", step.gather) + row(what + ", tree", step.tree);
  }
  return text;
}

Json to_json(const PlanStudy& study) {
  Json json = {{"phase_1", study.as_planned.seconds},
               {"phase_1_with_slow_rank", study.with_slow_rank.seconds},
               {"phase_1_ring", study.ring ? Json(study.ring->seconds) : Json(nullptr)},
               {"steps", Json::array()}};
  for (const PlanStudy::Step& step : study.steps)
    json["steps"].push_back(
        {{"rows", step.n_rows}, {"gather", step.gather.seconds}, {"tree", step.tree.seconds}});
  return json;
}

}  // namespace starattn
