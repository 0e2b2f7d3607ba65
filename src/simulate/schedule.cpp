// SPDX-License-Identifier: Apache-2.0
#include "simulate/schedule.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/error.h"
#include "exchange/channel.h"
#include "simulate/timeline.h"
#include "star/answer.h"
#include "star/merge_tree.h"
#include "star/recall_choice.h"

namespace starattn {
namespace {

// Layers are alike: of many, so many are simulated where the whole would be long, and the rest go
// on as the last ones do.
constexpr std::size_t kMostOperations = 20'000'000;
constexpr std::int64_t kFewLayers = 4;

// What is made in memory before it runs, roughly: of star an entry a block, of recall one a block
// and rank, of reach one a pair of blocks.
void refuse_too_many(const BlockPlan& plan) {
  constexpr int kMostRanks = 8192;
  constexpr double kMostEntries = 1e7;
  const auto blocks = static_cast<double>(plan.n_blocks());
  const double entries = plan.reach() > 0    ? blocks * blocks
                         : plan.recall() > 0 ? blocks * plan.n_ranks()
                                             : 8 * blocks;
  if (plan.n_ranks() <= kMostRanks && entries <= kMostEntries) return;
  fail(Exit::unfit,
       "{} blocks on {} ranks are too many to simulate: at most {} ranks, and fewer and larger "
       "blocks",
       plan.n_blocks(), plan.n_ranks(), kMostRanks);
}

Links links_of(const BlockPlan& plan, const Machine& machine, const Cluster& cluster,
               const std::optional<Line>& near) {
  refuse_too_many(plan);
  if (plan.n_ranks() > 1 && !near) {
    fail(
        Exit::unfit,
        "the machine file has no messages: it was made on one rank, and the plan has {}. Run bench "
        "--calibrate on two ranks of a node",
        plan.n_ranks());
  }
  return {std::min(cluster.ranks_per_node, plan.n_ranks()), near.value_or(Line{0, 1}),
          machine.network.value_or(cluster.network), machine.dtype == Dtype::f32};
}

std::vector<std::vector<BlockId>> blocks_by_rank(const BlockPlan& plan) {
  std::vector<std::vector<BlockId>> blocks(static_cast<std::size_t>(plan.n_ranks()));
  for (BlockId i = 0; i < plan.n_blocks(); ++i)
    blocks[static_cast<std::size_t>(plan.owner(i))].push_back(i);
  return blocks;
}

Simulated run(Timeline& timeline, const BlockPlan& plan, const Cluster& cluster) {
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

// --- phase 1

class Phase1 {
 public:
  Phase1(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
         const Cluster& cluster, const Phase1Options& options, std::int64_t n_layers)
      : plan_(plan),
        seconds_(config, machine),
        options_(options),
        n_layers_(n_layers),
        blocks_(blocks_by_rank(plan)),
        timeline_(plan.n_ranks(), links_of(plan, machine, cluster, machine.message)) {
    for (Rank rank = 0; rank < plan.n_ranks(); ++rank)
      if (rank != plan.owner(0) && std::ranges::any_of(blocks_[at(rank)], [&](BlockId i) {
            return plan.anchor_of(i).n_tokens > 0;
          }))
        anchor_readers_.push_back(rank);
    if (plan.n_recalled(plan.n_blocks() - 1) > 0) {
      recall();
    } else if (plan.reach() == 0) {
      star();
    } else {
      reach();
    }
  }
  Timeline& timeline() { return timeline_; }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  bool is_last(std::int64_t layer) const { return layer + 1 == n_layers_; }
  std::int64_t rows_of(BlockId i) const { return plan_.block(i).n_tokens; }

  // A layer's keys and values leave for host memory beside the computation.
  void compute(Rank rank, double seconds, std::int64_t n_stored) {
    const auto& bus = seconds_.machine().bus_bytes_per_s;
    if (options_.kv_memory == KvMemory::host && bus)
      seconds = std::max(seconds, seconds_.kv_bytes(n_stored) / *bus);
    timeline_.compute(rank, seconds);
  }

  // Block 0's owner, after a layer of it. The messages, by reader.
  std::map<Rank, Timeline::Message> send_anchor() {
    const double n_bytes = seconds_.kv_bytes(plan_.anchor_size());
    Timeline::Message first = timeline_.send_on_and_on(
        plan_.owner(0), n_bytes, static_cast<double>(Channel::kPieceBytes), anchor_readers_);
    std::map<Rank, Timeline::Message> messages;
    for (const Rank rank : anchor_readers_) messages[rank] = first++;
    return messages;
  }

  // Ranks take their blocks one after another, each through all layers.
  void star() {
    const bool is_sent = options_.anchor_mode == AnchorMode::broadcast;
    std::vector<std::map<Rank, Timeline::Message>> anchors(at(n_layers_));
    const auto encode = [&](Rank rank) {
      for (const BlockId i : blocks_[at(rank)]) {
        const std::int64_t n = rows_of(i);
        const std::int64_t n_anchor = plan_.anchor_of(i).n_tokens;
        const double layer_seconds =
            seconds_.project(n) + seconds_.attend(n, n_anchor) + seconds_.feed_forward(n);
        if (!is_sent && n_anchor > 0)
          timeline_.compute(rank, static_cast<double>(n_layers_ - 1) *
                                      (seconds_.project(n_anchor) + seconds_.attend(n_anchor, 0) +
                                       seconds_.feed_forward(n_anchor)));
        for (std::int64_t layer = 0; layer < n_layers_; ++layer) {
          if (is_last(layer)) {
            timeline_.compute(rank, seconds_.project_kv(n));
            break;
          }
          const auto anchor = anchors[at(layer)].find(rank);
          if (n_anchor > 0 && anchor != anchors[at(layer)].end())
            timeline_.wait(rank, anchor->second);
          compute(rank, layer_seconds, n);
          if (i == 0 && is_sent) anchors[at(layer)] = send_anchor();
        }
      }
    };
    encode(plan_.owner(0));  // first, so that its messages have their numbers
    for (Rank rank = 0; rank < plan_.n_ranks(); ++rank)
      if (rank != plan_.owner(0)) encode(rank);
  }

  // All blocks go through a layer together; other ranks' come by in ascending order.
  void reach() {
    const auto n_seen = [&](BlockId i, BlockId j) -> std::int64_t {  // of block j, by block i
      if (i == j || plan_.first_reached(i) <= j) return rows_of(j);
      return j == 0 ? plan_.anchor_of(i).n_tokens : 0;
    };
    // Tokens of block j that the rank needs.
    const auto n_needed = [&](Rank rank, BlockId j) {
      std::int64_t most = 0;
      for (const BlockId i : blocks_[at(rank)])
        if (i > j) most = std::max(most, n_seen(i, j));
      return most;
    };
    // Attention of all rows of a rank to block j.
    const auto attend = [&](Rank rank, BlockId j) {
      double sum = 0;
      for (const BlockId i : blocks_[at(rank)]) {
        if (i == j) sum += seconds_.attend_own_and_merge(rows_of(i));
        if (i > j && n_seen(i, j) > 0) sum += seconds_.attend_and_merge(rows_of(i), n_seen(i, j));
      }
      return sum;
    };
    std::vector<std::vector<std::pair<BlockId, double>>> attends(at(plan_.n_ranks()));
    std::vector<std::vector<Rank>> readers(at(plan_.n_blocks()));
    for (Rank rank = 0; rank < plan_.n_ranks(); ++rank) {
      for (BlockId j = 0; j < plan_.n_blocks(); ++j) {
        const double seconds = attend(rank, j);
        if (seconds > 0) attends[at(rank)].emplace_back(j, seconds);
        if (plan_.owner(j) != rank && n_needed(rank, j) > 0) readers[at(j)].push_back(rank);
      }
    }
    std::vector<double> project(at(plan_.n_ranks())), kv(project), feed(project);
    for (Rank rank = 0; rank < plan_.n_ranks(); ++rank) {
      for (const BlockId i : blocks_[at(rank)]) {
        project[at(rank)] += seconds_.project(rows_of(i));
        kv[at(rank)] += seconds_.project_kv(rows_of(i));
        feed[at(rank)] += seconds_.feed_forward(rows_of(i));
      }
    }
    for (std::int64_t layer = 0; layer < n_layers_; ++layer) {
      std::vector<std::map<Rank, Timeline::Message>> messages(at(plan_.n_blocks()));
      for (Rank rank = 0; rank < plan_.n_ranks(); ++rank) {
        timeline_.compute(rank, is_last(layer) ? kv[at(rank)] : project[at(rank)]);
        if (is_last(layer)) continue;
        for (const BlockId i : blocks_[at(rank)]) {
          // The most that any of them needs, which is all of the block but with anchors alone.
          std::int64_t n = 0;
          for (const Rank reader : readers[at(i)]) n = std::max(n, n_needed(reader, i));
          Timeline::Message first = timeline_.send(rank, seconds_.kv_bytes(n), readers[at(i)]);
          for (const Rank reader : readers[at(i)]) messages[at(i)][reader] = first++;
        }
      }
      if (is_last(layer)) break;
      for (Rank rank = 0; rank < plan_.n_ranks(); ++rank) {
        for (const auto& [j, seconds] : attends[at(rank)]) {
          if (plan_.owner(j) != rank) timeline_.wait(rank, messages[at(j)].at(rank));
          timeline_.compute(rank, seconds);
        }
        timeline_.compute(rank, feed[at(rank)]);
      }
    }
  }

  // Blocks of a wave go through a layer together (star/encode_recall.cpp, recall_exchange.cpp).
  void recall() {
    std::vector<std::map<Rank, Timeline::Message>> anchors(at(n_layers_));
    for (BlockId first = 0; first < plan_.n_blocks(); first += plan_.n_ranks()) {
      const BlockId end = std::min<BlockId>(plan_.n_blocks(), first + plan_.n_ranks());
      for (std::int64_t layer = 0; layer < n_layers_; ++layer)
        recall_layer(first, end, layer, anchors[at(layer)]);
    }
  }

  struct Held {  // of a block that asks, by one rank
    BlockId asking = 0;
    Rank rank = 0;
    std::int64_t n_tokens = 0;
    Timeline::Message ask = 0, candidates = 0, wanted = 0, handed = 0;
  };

  void recall_layer(BlockId first, BlockId end, std::int64_t layer,
                    std::map<Rank, Timeline::Message>& anchor) {
    for (BlockId i = first; i < end; ++i) {
      const Rank rank = plan_.owner(i);
      const std::int64_t n = rows_of(i);
      timeline_.compute(rank, is_last(layer) ? seconds_.project_kv(n) : seconds_.project(n));
      if (i == 0 && !is_last(layer)) anchor = send_anchor();
    }
    if (is_last(layer)) return;

    std::vector<Held> all;  // by asking block, then by rank
    for (BlockId i = first; i < end; ++i) {
      if (plan_.n_asking_rows(i) == 0) continue;
      for (Rank rank = 0; rank < plan_.n_ranks(); ++rank) {
        std::int64_t held = 0;
        for (const BlockId j : blocks_[at(rank)]) {
          if (j >= i) break;
          held += j == 0 ? std::max<std::int64_t>(0, rows_of(j) - plan_.anchor_size()) : rows_of(j);
        }
        if (held > 0) all.push_back({i, rank, held});
      }
    }
    const auto owner = [&](const Held& held) { return plan_.owner(held.asking); };
    const auto is_other = [&](const Held& held) { return owner(held) != held.rank; };
    // Of what is recalled, each holder's part is taken for its part of the tokens.
    const auto n_candidates = [&](const Held& held) {
      return std::min(plan_.n_recalled(held.asking), held.n_tokens);
    };
    const auto n_handed = [&](const Held& held) {
      return std::max<std::int64_t>(1, plan_.n_recalled(held.asking) * held.n_tokens /
                                           plan_.recallable(held.asking).n_tokens);
    };
    const auto attend_a_third = [&] {
      for (BlockId i = first; i < end; ++i)
        if (plan_.n_asking_rows(i) > 0)
          timeline_.compute(plan_.owner(i),
                            seconds_.attend(rows_of(i), plan_.anchor_of(i).n_tokens) / 3);
    };
    for (BlockId i = first; i < end; ++i) {
      const auto arrival = anchor.find(plan_.owner(i));
      if (plan_.anchor_of(i).n_tokens > 0 && arrival != anchor.end())
        timeline_.wait(plan_.owner(i), arrival->second);
      if (plan_.n_asking_rows(i) > 0)
        timeline_.compute(plan_.owner(i), seconds_.ask(rows_of(i), plan_.n_asking_rows(i),
                                                       plan_.anchor_of(i).n_tokens));
    }
    const auto send = [&](Rank from, double n_bytes, Rank to) {
      return timeline_.send(from, n_bytes, {&to, 1});
    };
    for (Held& held : all)
      if (is_other(held))
        held.ask =
            send(owner(held), seconds_.ask_bytes(plan_.n_asking_rows(held.asking)), held.rank);
    attend_a_third();
    for (Held& held : all) {
      if (is_other(held)) timeline_.wait(held.rank, held.ask);
      timeline_.compute(held.rank, seconds_.score(plan_.n_asking_rows(held.asking), held.n_tokens));
      if (is_other(held))
        held.candidates =
            send(held.rank, 8.0 * static_cast<double>(n_candidates(held)), owner(held));
    }
    attend_a_third();
    for (const Held& held : all)
      if (is_other(held)) timeline_.wait(owner(held), held.candidates);
    for (Held& held : all)
      if (is_other(held))
        held.wanted = send(owner(held), 4.0 * static_cast<double>(n_candidates(held)), held.rank);
    for (Held& held : all) {
      if (is_other(held)) timeline_.wait(held.rank, held.wanted);
      timeline_.compute(held.rank, seconds_.gather(n_handed(held)));
      if (is_other(held))
        held.handed = send(held.rank, seconds_.kv_bytes(n_handed(held)), owner(held));
    }
    attend_a_third();
    for (const Held& held : all)
      if (is_other(held)) timeline_.wait(owner(held), held.handed);
    for (BlockId i = first; i < end; ++i) {
      const std::int64_t n = rows_of(i);
      const double attention =
          plan_.n_asking_rows(i) > 0
              ? seconds_.attend_and_merge(n, plan_.n_recalled(i)) +
                    (plan_.n_ranks() > 1 ? seconds_.gather(plan_.n_recalled(i)) : 0)
              : seconds_.attend(n, plan_.anchor_of(i).n_tokens);
      compute(plan_.owner(i), attention + seconds_.feed_forward(n), n);
    }
  }

  const BlockPlan& plan_;
  Seconds seconds_;
  Phase1Options options_;
  std::int64_t n_layers_;
  std::vector<std::vector<BlockId>> blocks_;  // by rank
  std::vector<Rank> anchor_readers_;
  Timeline timeline_;
};

// --- phase 2

class StepOfRanks {
 public:
  StepOfRanks(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
              const Cluster& cluster, std::int64_t n_rows, AnswerLayout layout, KvMemory kv_memory,
              std::int64_t n_layers)
      : plan_(plan),
        seconds_(config, machine),
        n_rows_(n_rows),
        blocks_(blocks_by_rank(plan)),
        timeline_(plan.n_ranks(), links_of(plan, machine, cluster, half(machine.step))) {
    for (const std::vector<BlockId>& blocks : blocks_) {
      std::int64_t n_keys = 0;
      for (const BlockId i : blocks) n_keys += plan.block(i).n_tokens;
      attention_.push_back(
          seconds_.step_attention(n_rows, std::ssize(blocks), n_keys, kv_memory == KvMemory::host));
      subtrees_.push_back(subtrees_of(blocks, plan.n_blocks()));
    }
    const bool is_one_node = cluster.ranks_per_node >= plan.n_ranks();
    for (std::int64_t layer = 0; layer < n_layers; ++layer) {
      timeline_.compute(0, seconds_.step_layer(n_rows));
      is_one_node ? share_in_window() : share_by_messages();
      for (Rank rank = 0; rank < plan.n_ranks(); ++rank)
        timeline_.compute(rank, attention_[at(rank)]);
      layout.tree_merge ? merge_along_tree() : gather();
    }
  }
  Timeline& timeline() { return timeline_; }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  // A layer's exchange is there and back.
  static std::optional<Line> half(const std::optional<Line>& line) {
    if (!line) return std::nullopt;
    return Line{line->start_s / 2, line->bytes_per_s};
  }

  void share_in_window() {
    std::vector<Rank> others;
    for (Rank rank = 1; rank < plan_.n_ranks(); ++rank)
      if (!blocks_[at(rank)].empty()) others.push_back(rank);
    Timeline::Message message = timeline_.send(0, seconds_.q_bytes(n_rows_), others);
    for (const Rank rank : others) timeline_.wait(rank, message++);
  }

  // MPI_Bcast along a binomial tree.
  void share_by_messages() {
    const double n_bytes = seconds_.q_bytes(n_rows_);
    std::vector<std::optional<Timeline::Message>> arrival(at(plan_.n_ranks()));
    int top = 1;
    while (top < plan_.n_ranks()) top *= 2;
    for (int stride = top / 2; stride > 0; stride /= 2) {
      for (Rank from = 0; from + stride < plan_.n_ranks(); from += 2 * stride) {
        const Rank to = from + stride;
        if (arrival[at(from)])
          timeline_.wait(from, *std::exchange(arrival[at(from)], std::nullopt));
        arrival[at(to)] = timeline_.send(from, n_bytes, {&to, 1});
      }
    }
    for (Rank rank = 1; rank < plan_.n_ranks(); ++rank)
      if (arrival[at(rank)]) timeline_.wait(rank, *arrival[at(rank)]);
  }

  void gather() {
    std::vector<Timeline::Message> arriving;
    std::int64_t n_parts = std::ssize(subtrees_[0]);
    const Rank query_rank = 0;
    for (Rank rank = 1; rank < plan_.n_ranks(); ++rank) {
      const std::int64_t n = std::ssize(subtrees_[at(rank)]);
      if (n == 0) continue;
      n_parts += n;
      arriving.push_back(timeline_.send(
          rank, static_cast<double>(n) * seconds_.partial_bytes(n_rows_), {&query_rank, 1}));
    }
    for (const Timeline::Message message : arriving) timeline_.wait(query_rank, message);
    timeline_.compute(query_rank, seconds_.merge_step(n_rows_, n_parts - 1));
  }

  // ContextAttention::merge_along_tree.
  void merge_along_tree() {
    const std::int64_t n_blocks = plan_.n_blocks();
    const auto holder = [&](MergeNode node) { return plan_.owner(node.first_block()); };
    const double n_bytes = seconds_.partial_bytes(n_rows_);
    const std::function<void(MergeNode)> reduce = [&](MergeNode node) {
      const Rank here = holder(node);
      if (std::ranges::find(subtrees_[at(here)], node) != subtrees_[at(here)].end()) return;
      reduce(node.left());
      if (node.right().first_block() >= n_blocks) return;
      reduce(node.right());
      const Rank there = holder(node.right());
      if (here != there) timeline_.wait(here, timeline_.send(there, n_bytes, {&here, 1}));
      timeline_.compute(here, seconds_.merge_step(n_rows_, 1));
    };
    reduce(root_of(n_blocks));
    const Rank top = holder(root_of(n_blocks));
    const Rank query_rank = 0;
    if (top != query_rank)
      timeline_.wait(query_rank, timeline_.send(top, n_bytes, {&query_rank, 1}));
  }

  const BlockPlan& plan_;
  Seconds seconds_;
  std::int64_t n_rows_;
  std::vector<std::vector<BlockId>> blocks_;      // by rank
  std::vector<double> attention_;                 // by rank
  std::vector<std::vector<MergeNode>> subtrees_;  // by rank
  Timeline timeline_;
};

// With shared weights every rank takes its columns of all rows, attends to its own blocks, and all
// exchange six times a layer (exchange/shard_exchange.h): they go in step, so this is a sum.
Simulated shared_step(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                      std::int64_t n_rows, AnswerLayout layout, KvMemory kv_memory) {
  if (!machine.peer) {
    fail(Exit::unfit,
         "the machine file has no exchange of shared weights (peer): leave out --shard-weights");
  }
  const Seconds seconds(config, machine);
  double attention = 0;
  for (const std::vector<BlockId>& blocks : blocks_by_rank(plan)) {
    std::int64_t n_keys = 0;
    for (const BlockId i : blocks) n_keys += plan.block(i).n_tokens;
    attention = std::max(attention, seconds.step_attention(n_rows, std::ssize(blocks), n_keys,
                                                           kv_memory == KvMemory::host));
  }
  constexpr double kExchanges = 6;
  const double n_bytes = seconds.q_bytes(n_rows);
  const auto n_layers = static_cast<double>(config.n_layers);
  const double layer = seconds.step_layer(n_rows, layout.n_shares) + attention +
                       kExchanges * machine.peer->seconds(n_bytes);
  return {n_layers * layer, 0, 0, n_layers * kExchanges * n_bytes};
}

// simulate(n_layers) with all layers, or with a few of them where that would be long.
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
    return run(Phase1(config, plan, machine, cluster, options, n_layers).timeline(), plan, cluster);
  };
  const std::size_t n =
      Phase1(config, plan, machine, cluster, options, few).timeline().n_operations();
  return over_layers(config.n_layers, n, few, simulate);
}

Simulated simulate_step(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                        const Cluster& cluster, const StepRows& rows, AnswerLayout layout,
                        KvMemory kv_memory) {
  const Seconds seconds(config, machine);
  Simulated result;
  if (layout.n_shares > 1) {
    result = shared_step(config, plan, machine, rows.n_rows, layout, kv_memory);
  } else {
    StepOfRanks step(config, plan, machine, cluster, rows.n_rows, layout, kv_memory,
                     config.n_layers);
    result = run(step.timeline(), plan, cluster);
  }
  for (const std::int64_t n : rows.runs) result.seconds += seconds.next_tokens(n, layout.n_shares);
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
