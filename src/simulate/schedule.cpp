// SPDX-License-Identifier: Apache-2.0
#include "simulate/schedule.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "simulate/ranks.h"
#include "simulate/timelines.h"
#include "star/answer.h"
#include "star/merge_tree.h"

namespace starattn {
namespace {

// Layers are alike: of many, so many are simulated where the whole would be long, and the rest go
// on as the last ones do.
constexpr std::size_t kMostOperations = 20'000'000;
constexpr std::int64_t kFewLayers = 4;

Simulated run(Timeline timeline, const BlockPlan& plan, const Cluster& cluster) {
  for (const auto& [rank, factor] : cluster.slow)
    if (rank < plan.n_ranks()) timeline.slow_down(rank, factor);
  timeline.run();
  Simulated result{timeline.seconds(), timeline.waited(0), timeline.waited(0), timeline.n_bytes()};
  for (Rank rank = 0; rank < plan.n_ranks(); ++rank) {
    result.least_wait = std::min(result.least_wait, timeline.waited(rank));
    result.most_wait = std::max(result.most_wait, timeline.waited(rank));
  }
  return result;
}

// What n layers take, where `few` and `more` layers were simulated.
Simulated extrapolate(const Simulated& few, const Simulated& more, double n_more_layers) {
  const auto go_on = [&](double a, double b) { return b + (b - a) * n_more_layers; };
  return {go_on(few.seconds, more.seconds), go_on(few.least_wait, more.least_wait),
          go_on(few.most_wait, more.most_wait), go_on(few.n_bytes, more.n_bytes)};
}

// With shared weights every rank takes its columns of all rows, attends to its own blocks, and all
// exchange some six times a layer (exchange/shard_exchange.h): they go in step, so this is a sum.
Simulated shared_step(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                      std::int64_t n_rows, AnswerLayout layout, KvMemory kv_memory) {
  const bool has_groups = !machine.groups.empty();
  if (!has_groups && !machine.peer) {
    fail(Exit::unfit,
         "the machine file has no ranks that share out weights (groups): leave out "
         "--shard-weights, or run bench --calibrate on several GPUs of a node");
  }
  const Seconds seconds(config, machine, layout.n_shares);
  double attention = 0;
  std::int64_t most_parts = 1;
  for (const std::vector<BlockId>& blocks : blocks_by_rank(plan)) {
    most_parts = std::max(most_parts, std::ssize(subtrees_of(blocks, plan.n_blocks())));
    std::int64_t n_keys = 0;
    for (const BlockId i : blocks) n_keys += plan.block(i).n_tokens;
    attention = std::max(attention, seconds.step_attention(n_rows, std::ssize(blocks), n_keys,
                                                           kv_memory == KvMemory::host));
  }
  const double n_bytes = seconds.q_bytes(n_rows);
  const Machine::Group* group = group_of(machine, layout.n_shares);
  if (group && !group->parts.empty())
    attention += static_cast<double>(most_parts - 1) * seconds_of(group->parts, n_rows, 0, 1);
  Simulated step;
  for (std::int64_t layer = 0; layer < config.n_layers; ++layer) {
    // A shared expert has its own, and so have norms of all heads at once; a measured layer has
    // six, with a partial of each rank.
    const bool has_both = config.is_mixture(layer) && config.dense_size(layer) > 0;
    const double n_exchanges = 6 + (has_both ? 1 : 0) + (config.norms_all_heads ? 2 : 0);
    step.seconds += seconds.step_layer(n_rows, config.is_mixture(layer)) +
                    (config.has_window(layer) ? 0 : attention);
    if (!has_groups) step.seconds += n_exchanges * machine.peer->seconds(n_bytes);
    step.n_bytes += n_exchanges * n_bytes;
  }
  return step;
}

// simulate(n_layers) with all layers, or with a few of them where that would be long and layers are
// alike.
template <typename Simulate>
Simulated over_layers(std::int64_t n_layers, std::size_t n_operations_of_few, std::int64_t few,
                      const Simulate& simulate) {
  if (n_layers <= few + 2 ||
      n_operations_of_few / static_cast<std::size_t>(few) * static_cast<std::size_t>(n_layers) <
          kMostOperations)
    return simulate(n_layers);
  return extrapolate(simulate(few), simulate(few + 1), static_cast<double>(n_layers - few - 1));
}

}  // namespace

Simulated simulate_phase1(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                          const Cluster& cluster, const Phase1Options& options) {
  const std::int64_t few = std::min(kFewLayers, config.n_layers);
  const auto simulate = [&](std::int64_t n_layers) {
    return run(phase1_timeline(config, plan, machine, cluster, options, n_layers), plan, cluster);
  };
  const std::size_t n =
      phase1_timeline(config, plan, machine, cluster, options, few).n_operations();
  if (config.n_windows() > 0) return simulate(config.n_layers);
  return over_layers(config.n_layers, n, few, simulate);
}

Simulated simulate_step(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                        const Cluster& cluster, const StepRows& rows, AnswerLayout layout,
                        KvMemory kv_memory) {
  const int n_shares = std::max(1, layout.n_shares);
  const Seconds seconds(config, machine, n_shares);
  Simulated result;
  if (n_shares > 1) {
    result = shared_step(config, plan, machine, rows.n_rows, layout, kv_memory);
  } else {
    result = run(step_timeline(config, plan, machine, cluster, rows.n_rows, layout, kv_memory,
                               config.n_layers),
                 plan, cluster);
  }
  for (const std::int64_t n : rows.runs) result.seconds += seconds.next_tokens(n);
  return result;
}

SimulatedAnswers simulate_answers(const ModelConfig& config, const BlockPlan& plan,
                                  const Machine& machine, const Cluster& cluster,
                                  std::int64_t n_queries, std::int64_t n_query_tokens,
                                  std::int64_t n_new_tokens, AnswerLayout layout,
                                  KvMemory kv_memory) {
  struct Query {
    std::int64_t n_pending = 0;
    std::int64_t n_left = 0;  // new tokens
  };
  std::vector<Query> queries(static_cast<std::size_t>(n_queries), {n_query_tokens, n_new_tokens});
  std::map<std::pair<std::int64_t, std::vector<std::int64_t>>, double> known;  // steps alike
  SimulatedAnswers result;
  for (;;) {  // StepBatch::choose_rows and runs
    StepRows step{0, {}};
    std::int64_t last_row = -1;  // that predicted a token
    for (Query& query : queries) {
      const std::int64_t n = std::min(query.n_pending, Answerer::kMaxRows - step.n_rows);
      if (n == 0) continue;
      step.n_rows += n;
      query.n_pending -= n;
      if (query.n_pending > 0) continue;
      if (step.runs.empty() || last_row + 1 != step.n_rows - 1) step.runs.push_back(0);
      ++step.runs.back();
      last_row = step.n_rows - 1;
      if (--query.n_left > 0) query.n_pending = 1;
    }
    if (step.n_rows == 0) return result;
    auto [entry, is_new] = known.try_emplace({step.n_rows, step.runs}, 0);
    if (is_new)
      entry->second =
          simulate_step(config, plan, machine, cluster, step, layout, kv_memory).seconds;
    result.seconds += entry->second;
    ++result.n_steps;
  }
}

}  // namespace starattn
