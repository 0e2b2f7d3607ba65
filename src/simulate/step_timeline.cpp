// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "simulate/ranks.h"
#include "simulate/timelines.h"
#include "star/merge_tree.h"

namespace starattn {
namespace {

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
      timeline_.compute(0, seconds_.step_layer(n_rows, config.is_mixture(layer)));
      if (config.has_window(layer)) {  // the query rank has what its rows see (ContextTail)
        timeline_.compute(
            0, seconds_.step_attention(n_rows, 1,
                                       std::min(plan.n_context(), config.layer(layer).window - 1)));
        continue;
      }
      is_one_node ? share_in_window() : share_by_messages();
      for (Rank rank = 0; rank < plan.n_ranks(); ++rank)
        timeline_.compute(rank, attention_[at(rank)]);
      layout.tree_merge ? merge_along_tree() : gather();
    }
  }
  Timeline timeline() && { return std::move(timeline_); }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  // A layer's exchange is there and back.
  static std::optional<ByteTime> half(const std::optional<ByteTime>& line) {
    if (!line) return std::nullopt;
    return ByteTime{line->start_s / 2, line->bytes_per_s};
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

}  // namespace

Timeline step_timeline(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                       const Cluster& cluster, std::int64_t n_rows, AnswerLayout layout,
                       KvMemory kv_memory, std::int64_t n_layers) {
  return StepOfRanks(config, plan, machine, cluster, n_rows, layout, kv_memory, n_layers)
      .timeline();
}

}  // namespace starattn
