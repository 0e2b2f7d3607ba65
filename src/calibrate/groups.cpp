// SPDX-License-Identifier: Apache-2.0
#include "calibrate/groups.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "calibrate/inputs.h"
#include "calibrate/layers.h"
#include "calibrate/line_through.h"
#include "simulate/schedule.h"
#include "star/encode.h"
#include "study/random_model.h"

namespace starattn {
namespace {

constexpr std::int64_t kSteps = 16;  // of a batch of queries
constexpr double kAtOnce = 1e15;     // bytes a second

// Seconds until the last rank of the group is through with an operation: the mean of a few bundles,
// in which all ranks call it equally often.
// warm_up: seconds of it before them.
template <typename Operation>
double seconds_together(const Communicator& group, Backend& backend, double warm_up,
                        const Operation& operation) {
  const auto timed = [&](int n) {
    backend.synchronize();
    group.barrier();
    const Stopwatch clock;
    for (int i = 0; i < n; ++i) operation();
    backend.synchronize();
    const std::vector<double> all = group.allgather(clock.seconds() / n);
    return *std::ranges::max_element(all);
  };
  constexpr double kBundle = 0.04;
  constexpr int kBundles = 2;
  timed(1);
  const double once = timed(1);
  const auto calls_in = [&](double seconds) {
    return static_cast<int>(std::clamp(seconds / once, 1.0, 1e3));
  };
  timed(calls_in(warm_up));
  const int n = calls_in(kBundle);
  double sum = 0;
  for (int i = 0; i < kBundles; ++i) sum += timed(n);
  return sum / kBundles;
}

ModelConfig with_layers(ModelConfig config, std::int64_t n_layers) {
  config.n_layers = n_layers;
  return config;
}

// What a further layer takes, and what is in none.
struct Layered {
  double layer = 0, rest = 0;
};

// The first layers of a model of random weights, few and more of them, on the ranks of a group.
class GroupModel {
 public:
  GroupModel(const ModelConfig& config, const GroupSizes& sizes, const Options& options,
             const Ranks& ranks)
      : group_(ranks.group),
        few_(make_random_model(with_layers(config, sizes.few_layers), options, ranks)),
        more_(make_random_model(with_layers(config, sizes.more_layers), options, ranks)) {}

  bool is_shared() const { return few_->sharing.is_on() && more_->sharing.is_on(); }
  const ModelConfig& config() const { return more_->config; }

  Layered encode(const BlockPlan& plan) const {
    return difference([&](LoadedModel& model) {
      Encoder encoder(*model.decoder, group_);
      const std::vector<Token> context = context_of(plan.n_context());
      const double warm_up = model.backend->is_host_memory() ? 0 : 0.7;  // as in SmallModel
      return seconds_together(group_, *model.backend, warm_up,
                              [&] { encoder.encode(plan, context); });
    });
  }
  // Of n_rows queries at once.
  Layered step(const BlockPlan& plan, std::int64_t n_rows) const {
    return difference([&](LoadedModel& model) {
      const DocumentKv kv =
          Encoder(*model.decoder, group_).encode(plan, context_of(plan.n_context()));
      Answerer answerer = model.answering->answerer(kv, {});
      std::vector<QueryJob> jobs;
      for (std::int64_t i = 0; i < n_rows; ++i)
        jobs.push_back({{static_cast<Token>(i % config().vocab_size)}, kSteps, 0});
      return seconds_together(group_, *model.backend, 0, [&] { answerer.answer(jobs); }) / kSteps;
    });
  }

 private:
  template <typename SecondsOf>
  Layered difference(const SecondsOf& seconds_of) const {
    const double few = seconds_of(*few_);
    const auto n_few = static_cast<double>(few_->config.n_layers);
    const double layer =
        (seconds_of(*more_) - few) / (static_cast<double>(more_->config.n_layers) - n_few);
    return {layer, few - layer * n_few};
  }
  std::vector<Token> context_of(std::int64_t n) const {
    std::vector<Token> context;
    for (std::int64_t i = 0; i < n; ++i)
      context.push_back(static_cast<Token>(i * 2654435761 % config().vocab_size));
    return context;
  }

  const Communicator& group_;
  std::unique_ptr<LoadedModel> few_, more_;
};

// A block of so many tokens on each rank, which sees itself alone.
BlockPlan block_a_rank(std::int64_t n_tokens, int n_ranks) {
  PlanRequest request;
  request.block_size = n_tokens;
  request.anchor_size = TokenShare{0};
  return BlockPlan::make(request, n_tokens * n_ranks, n_ranks);
}

BlockPlan ring_of(std::int64_t n_tokens, int n_ranks) {
  PlanRequest request;
  request.attention = Attention::ring;
  return BlockPlan::make(request, n_tokens * n_ranks, n_ranks);
}

// So many blocks on each rank, one behind the other or dealt out in turn.
BlockPlan blocks_of(std::int64_t n_tokens, std::int64_t n_blocks, int n_ranks,
                    Placement placement) {
  PlanRequest request;
  request.block_size = n_tokens / n_blocks;
  request.anchor_size = TokenShare{0};
  request.placement = placement;
  return BlockPlan::make(request, n_tokens * n_ranks, n_ranks);
}

// Two blocks on each rank.
BlockPlan recall_of(std::int64_t block, int n_ranks) {
  PlanRequest request;
  request.block_size = block;
  request.anchor_size = TokenShare{block / 8};
  request.recall = {block / 2};
  return BlockPlan::make(request, 2 * block * n_ranks, n_ranks);
}

// A further layer of phase 1, as it is simulated.
double simulated_layer(const Machine& m, const ModelConfig& config, const BlockPlan& plan) {
  const auto seconds = [&](std::int64_t n_layers) {
    return simulate_phase1(with_layers(config, n_layers), plan, m, {}, {.n_shares = plan.n_ranks()})
        .seconds;
  };
  return (seconds(8) - seconds(4)) / 4;
}

// What makes what was measured of a layer of what is simulated, where set(value) adds to that.
template <typename Set>
double fitted(const Machine& m, const ModelConfig& config, const BlockPlan& plan, double measured,
              double unit, const Set& set) {
  set(0);
  const double without = simulated_layer(m, config, plan);
  set(unit);
  const double with = simulated_layer(m, config, plan);
  return with > without ? std::max(0.0, unit * (measured - without) / (with - without)) : 0;
}

double weight_bytes(const ModelConfig& config, int n_shares) {
  return 2 *
         static_cast<double>(config.hidden_size * (2 * config.q_width() + 2 * config.kv_width() +
                                                   3 * config.intermediate_size)) /
         n_shares;
}

// All of a layer of a step but the context, of which each rank has a block.
double beside_context(const Machine& m, const GroupModel& model, const BlockPlan& plan,
                      std::int64_t n_rows, double layer) {
  const double context =
      Seconds(model.config(), m).step_attention(n_rows, 1, plan.block(0).n_tokens);
  return std::max(0.1 * layer, layer - context);
}

double logit_bytes(const ModelConfig& config, std::int64_t n_rows) {
  return static_cast<double>(n_rows * config.vocab_size) * sizeof(float);
}

// All of a step that is in no layer, but a rank's part of the head.
double beside_head(const Machine& m, const ModelConfig& config, std::int64_t n_rows, int n_shares,
                   double rest) {
  const double bytes = 2 * static_cast<double>(config.vocab_size * config.hidden_size) / n_shares;
  return std::max(0.0, rest - seconds_of(m.thin_products, n_rows, config.hidden_size, bytes));
}

}  // namespace

std::optional<Machine::Group> measure_group(const Machine& m, const Options& options,
                                            const Ranks& ranks, const GroupSizes& sizes) {
  const int n_ranks = ranks.group.size();
  const GroupModel wide(sizes.wide, sizes, options, ranks);
  if (!wide.is_shared()) return std::nullopt;
  const GroupModel narrow(sizes.narrow, sizes, options, ranks);
  const BlockPlan few = block_a_rank(sizes.n_few, n_ranks);
  const BlockPlan many = block_a_rank(sizes.n_many, n_ranks);

  Machine with_group = m;
  with_group.groups.assign(1, {});
  Machine::Group& group = with_group.groups.back();
  group.n_ranks = n_ranks;
  group.in_layer = in_layer_like(m, sizes.wide, sizes.n_many, wide.encode(many).layer);
  for (const std::int64_t n : sizes.n_rows) {
    const Layered step_narrow = narrow.step(few, n), step_wide = wide.step(few, n);
    group.thin_layers.push_back({n, sizes.wide.hidden_size,
                                 line_through(weight_bytes(sizes.narrow, n_ranks),
                                              beside_context(m, narrow, few, n, step_narrow.layer),
                                              weight_bytes(sizes.wide, n_ranks),
                                              beside_context(m, wide, few, n, step_wide.layer))});
    group.next_tokens.push_back(
        {n, 0,
         line_through(logit_bytes(sizes.narrow, n),
                      beside_head(m, sizes.narrow, n, n_ranks, step_narrow.rest),
                      logit_bytes(sizes.wide, n),
                      beside_head(m, sizes.wide, n, n_ranks, step_wide.rest))});
  }
  constexpr std::int64_t kBlocks = 4;
  for (const std::int64_t n : sizes.n_rows) {
    const auto layer = [&](Placement placement) {
      return wide.step(blocks_of(sizes.n_few, kBlocks, n_ranks, placement), n).layer;
    };
    const double of_all = layer(Placement::round_robin) - layer(Placement::contiguous);
    group.parts.push_back({n, 0, {std::max(0.0, of_all / (kBlocks - 1)), kAtOnce}});
  }
  group.recall_wait = {0, kAtOnce};
  const BlockPlan ring = ring_of(sizes.n_many, n_ranks);
  group.copy_s_a_byte = fitted(with_group, sizes.wide, ring, wide.encode(ring).layer, 1e-10,
                               [&](double value) { group.copy_s_a_byte = value; });
  const auto recall_wait = [&](std::int64_t block) {
    const BlockPlan recall = recall_of(block, n_ranks);
    return fitted(with_group, sizes.wide, recall, wide.encode(recall).layer, 1e-3,
                  [&](double value) { group.recall_wait.start_s = value; });
  };
  const double few_wait = recall_wait(sizes.n_few), many_wait = recall_wait(sizes.n_many);
  const Seconds seconds(sizes.wide, m);
  group.recall_wait = line_through(seconds.kv_bytes(sizes.n_few), few_wait,
                                   seconds.kv_bytes(sizes.n_many), many_wait);
  return group;
}

void measure_groups(Machine& m, const DeviceOptions& device, const Ranks& ranks) {
  if (m.dtype == Dtype::f32) return;  // CPUs share nothing out unless they are asked to
  Options options;
  static_cast<DeviceOptions&>(options) = device;
  GroupSizes sizes;
  sizes.n_few = m.chunk_rows;
  sizes.n_many = 4 * m.chunk_rows;
  sizes.n_rows.assign(std::begin(kThinRows), std::end(kThinRows));
  sizes.wide.hidden_size = kWidth;
  sizes.wide.head_dim = 128;
  sizes.wide.n_heads = kWidth / 128;
  sizes.wide.n_kv_heads = sizes.wide.n_heads / 4;
  sizes.narrow = sizes.wide;
  sizes.wide.intermediate_size = kWidest;
  sizes.narrow.intermediate_size = kWidth;
  sizes.wide.vocab_size = 32768;
  sizes.narrow.vocab_size = 4096;
  for (int n = 2; n <= ranks.world.size() && ranks.world.size() % n == 0; n *= 2) {
    const auto mine = [&] { return ranks.world.split(ranks.world.rank() / n); };
    const Ranks group{.world = mine(),
                      .group = mine(),
                      .node_rank = ranks.node_rank,
                      .n_threads = ranks.n_threads};
    const auto measured = measure_group(m, options, group, sizes);
    if (ranks.world.any(!measured)) return;
    m.groups.push_back(*measured);
  }
}

}  // namespace starattn
