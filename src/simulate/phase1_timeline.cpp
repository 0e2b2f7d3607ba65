// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "exchange/channel.h"
#include "simulate/ranks.h"
#include "simulate/timelines.h"

namespace starattn {
namespace {

class Phase1 {
 public:
  Phase1(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
         const Cluster& cluster, const Phase1Options& options, std::int64_t n_layers)
      : config_(config),
        plan_(plan),
        seconds_(config, machine, options.n_shares),
        options_(options),
        n_layers_(n_layers),
        blocks_(blocks_by_rank(plan)),
        timeline_(plan.n_ranks(), links_of(plan, machine, cluster, machine.message)) {
    // As many ranks of a node as have blocks.
    const int n_at_work = static_cast<int>(
        std::min<std::int64_t>(std::min(plan.n_ranks(), cluster.ranks_per_node), plan.n_blocks()));
    if (const Machine::Group* group = group_of(machine, n_at_work); group && n_at_work > 1) {
      copy_s_a_byte_ = group->copy_s_a_byte;
      recall_wait_ = group->recall_wait;
    }
    for (Rank rank = 0; rank < plan.n_ranks(); ++rank)
      if (rank != plan.owner(0) && std::ranges::any_of(blocks_[at(rank)], [&](BlockId i) {
            return plan.anchor_of(i).n_tokens > 0;
          }))
        anchor_readers_.push_back(rank);
    const bool has_halos = config.widest_window() > 0 && plan.n_blocks() > 1;
    if (plan.n_recalled(plan.n_blocks() - 1) > 0 || (has_halos && plan.reach() == 0)) {
      waves();
    } else if (plan.reach() == 0) {
      star();
    } else {
      reach();
    }
  }
  Timeline timeline() && { return std::move(timeline_); }

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

  // Keys and values that come in pass through the same memory as what the rank computes.
  void wait_for_kv(Rank rank, Timeline::Message message, std::int64_t n_tokens) {
    timeline_.wait(rank, message);
    if (copy_s_a_byte_ > 0) timeline_.compute(rank, seconds_.kv_bytes(n_tokens) * copy_s_a_byte_);
  }
  void wait_for_recall(Rank rank, Timeline::Message message, BlockId asking) {
    timeline_.wait(rank, message);
    if (recall_wait_)
      timeline_.compute(rank, recall_wait_->seconds(seconds_.kv_bytes(rows_of(asking))));
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

  // Of rows to what stands before them, through the window where there is one.
  double layer_seconds(std::int64_t layer, std::int64_t n_rows, std::int64_t n_before) const {
    return seconds_.project(n_rows) + attend(layer, n_rows, n_before) + feed_forward(layer, n_rows);
  }
  double attend(std::int64_t layer, std::int64_t n_rows, std::int64_t n_before) const {
    return seconds_.attend(n_rows, n_before, config_.layer(layer).window);
  }
  double feed_forward(std::int64_t layer, std::int64_t n_rows) const {
    return seconds_.feed_forward(n_rows, config_.is_mixture(layer));
  }

  // Ranks take their blocks one after another, each through all layers.
  void star() {
    const bool is_sent = options_.anchor_mode == AnchorMode::broadcast;
    std::vector<std::map<Rank, Timeline::Message>> anchors(at(n_layers_));
    const auto encode = [&](Rank rank) {
      for (const BlockId i : blocks_[at(rank)]) {
        const std::int64_t n = rows_of(i);
        const std::int64_t n_anchor = plan_.anchor_of(i).n_tokens;
        timeline_.compute(rank, seconds_.start_block(n));
        if (!is_sent && n_anchor > 0) {
          timeline_.compute(rank, seconds_.start_block(n_anchor));
          for (std::int64_t layer = 0; !is_last(layer); ++layer)
            timeline_.compute(rank, layer_seconds(layer, n_anchor, 0));
        }
        for (std::int64_t layer = 0; layer < n_layers_; ++layer) {
          if (is_last(layer)) {
            timeline_.compute(rank, seconds_.project_kv(n));
            break;
          }
          const auto anchor = anchors[at(layer)].find(rank);
          if (n_anchor > 0 && anchor != anchors[at(layer)].end())
            wait_for_kv(rank, anchor->second, i == blocks_[at(rank)].front() ? n_anchor : 0);
          compute(rank, layer_seconds(layer, n, n_anchor), n);
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
    const auto attend_to = [&](std::int64_t window, Rank rank, BlockId j) {
      double sum = 0;
      for (const BlockId i : blocks_[at(rank)]) {
        const std::int64_t n_between = plan_.block(i).first_doc - plan_.block(j).first_doc -
                                       rows_of(j);  // below 0 where i is j
        if (i == j) sum += seconds_.attend_own_and_merge(rows_of(i), window);
        if (i > j && n_seen(i, j) > 0)
          sum += seconds_.attend_and_merge(rows_of(i), n_seen(i, j), n_between, window);
      }
      return sum;
    };
    std::vector<std::vector<BlockId>> seen(at(plan_.n_ranks()));  // by a rank's blocks
    std::vector<std::vector<Rank>> readers(at(plan_.n_blocks()));
    for (Rank rank = 0; rank < plan_.n_ranks(); ++rank) {
      for (BlockId j = 0; j < plan_.n_blocks(); ++j) {
        if (plan_.owner(j) == rank || n_needed(rank, j) > 0) seen[at(rank)].push_back(j);
        if (plan_.owner(j) != rank && n_needed(rank, j) > 0) readers[at(j)].push_back(rank);
      }
    }
    // By the window of a layer, for all that have it: of each rank, to what it has seen.
    std::map<std::int64_t, std::vector<std::vector<double>>> attention;
    const auto attention_of = [&](std::int64_t window) -> const auto& {
      auto [entry, is_new] = attention.try_emplace(window, at(plan_.n_ranks()));
      for (Rank rank = 0; is_new && rank < plan_.n_ranks(); ++rank)
        for (const BlockId j : seen[at(rank)])
          entry->second[at(rank)].push_back(attend_to(window, rank, j));
      return entry->second;
    };
    const auto sum_over_blocks = [&](Rank rank, const auto& seconds_of_rows) {
      double sum = 0;
      for (const BlockId i : blocks_[at(rank)]) sum += seconds_of_rows(rows_of(i));
      return sum;
    };
    for (Rank rank = 0; rank < plan_.n_ranks(); ++rank)
      timeline_.compute(
          rank, sum_over_blocks(rank, [&](std::int64_t n) { return seconds_.start_block(n); }));
    for (std::int64_t layer = 0; layer < n_layers_; ++layer) {
      std::vector<std::map<Rank, Timeline::Message>> messages(at(plan_.n_blocks()));
      for (Rank rank = 0; rank < plan_.n_ranks(); ++rank) {
        timeline_.compute(rank, sum_over_blocks(rank, [&](std::int64_t n) {
                            return is_last(layer) ? seconds_.project_kv(n) : seconds_.project(n);
                          }));
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
      const auto& seconds = attention_of(config_.layer(layer).window);
      for (Rank rank = 0; rank < plan_.n_ranks(); ++rank) {
        for (std::size_t k = 0; k < seen[at(rank)].size(); ++k) {
          const BlockId j = seen[at(rank)][k];
          if (plan_.owner(j) != rank)
            wait_for_kv(rank, messages[at(j)].at(rank), n_needed(rank, j));
          timeline_.compute(rank, seconds[at(rank)][k]);
        }
        timeline_.compute(
            rank, sum_over_blocks(rank, [&](std::int64_t n) { return feed_forward(layer, n); }));
      }
    }
  }

  // Blocks of a wave go through a layer together (star/encode_waves.cpp, recall_exchange.cpp).
  void waves() {
    std::vector<std::map<Rank, Timeline::Message>> anchors(at(n_layers_));
    const bool recalls = plan_.n_recalled(plan_.n_blocks() - 1) > 0;
    for (BlockId first = 0; first < plan_.n_blocks(); first += plan_.n_ranks()) {
      const BlockId end = std::min<BlockId>(plan_.n_blocks(), first + plan_.n_ranks());
      for (BlockId i = first; i < end; ++i)
        timeline_.compute(plan_.owner(i), seconds_.start_block(rows_of(i)));
      for (std::int64_t layer = 0; layer < n_layers_; ++layer) {
        project(first, end, layer, anchors[at(layer)]);
        if (is_last(layer)) break;
        if (config_.has_window(layer)) {
          halo_layer(first, end, layer);
        } else if (recalls) {
          recall_layer(first, end, layer, anchors[at(layer)]);
        } else {
          for (BlockId i = first; i < end; ++i) {
            wait_for_anchor(i, anchors[at(layer)]);
            finish_layer(i, layer, plan_.anchor_of(i).n_tokens);
          }
        }
      }
    }
  }

  void project(BlockId first, BlockId end, std::int64_t layer,
               std::map<Rank, Timeline::Message>& anchor) {
    for (BlockId i = first; i < end; ++i) {
      const std::int64_t n = rows_of(i);
      timeline_.compute(plan_.owner(i),
                        is_last(layer) ? seconds_.project_kv(n) : seconds_.project(n));
      if (i == 0 && !is_last(layer) && !config_.has_window(layer)) anchor = send_anchor();
    }
  }

  void wait_for_anchor(BlockId i, const std::map<Rank, Timeline::Message>& anchor) {
    const auto arrival = anchor.find(plan_.owner(i));
    if (plan_.anchor_of(i).n_tokens > 0 && arrival != anchor.end())
      wait_for_kv(plan_.owner(i), arrival->second,
                  i < plan_.n_ranks() ? plan_.anchor_of(i).n_tokens : 0);  // it stays
  }

  void finish_layer(BlockId i, std::int64_t layer, std::int64_t n_before) {
    const std::int64_t n = rows_of(i);
    compute(plan_.owner(i), attend(layer, n, n_before) + feed_forward(layer, n), n);
  }

  // Ranks hand over the last tokens before each block of the wave (star/halo_exchange.cpp).
  void halo_layer(BlockId first, BlockId end, std::int64_t layer) {
    std::vector<std::pair<Rank, Timeline::Message>> arriving;
    const auto n_halo = [&](BlockId i) {
      return std::min(plan_.block(i).first_doc, config_.layer(layer).window - 1);
    };
    for (BlockId i = first; i < end; ++i) {
      const Rank reader = plan_.owner(i);
      const std::int64_t first_seen = plan_.block(i).first_doc - n_halo(i);
      for (BlockId j = first_seen / plan_.block_size(); j < i; ++j) {
        const TokenRange block = plan_.block(j);
        const std::int64_t n =
            block.first_doc + block.n_tokens - std::max(block.first_doc, first_seen);
        if (plan_.owner(j) != reader && n > 0)
          arriving.emplace_back(reader,
                                timeline_.send(plan_.owner(j), seconds_.kv_bytes(n), {&reader, 1}));
      }
    }
    for (const auto& [reader, message] : arriving) timeline_.wait(reader, message);
    for (BlockId i = first; i < end; ++i) finish_layer(i, layer, n_halo(i));
  }

  struct Held {  // of a block that asks, by one rank
    BlockId asking = 0;
    Rank rank = 0;
    std::int64_t n_tokens = 0;
    Timeline::Message ask = 0, candidates = 0, wanted = 0, handed = 0;
  };

  void recall_layer(BlockId first, BlockId end, std::int64_t layer,
                    const std::map<Rank, Timeline::Message>& anchor) {
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
      wait_for_anchor(i, anchor);
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
      if (is_other(held)) wait_for_recall(held.rank, held.ask, held.asking);
      timeline_.compute(held.rank, seconds_.score(plan_.n_asking_rows(held.asking), held.n_tokens));
      if (is_other(held))
        held.candidates =
            send(held.rank, 8.0 * static_cast<double>(n_candidates(held)), owner(held));
    }
    attend_a_third();
    for (const Held& held : all)
      if (is_other(held)) wait_for_recall(owner(held), held.candidates, held.asking);
    for (Held& held : all)
      if (is_other(held))
        held.wanted = send(owner(held), 4.0 * static_cast<double>(n_candidates(held)), held.rank);
    for (Held& held : all) {
      if (is_other(held)) wait_for_recall(held.rank, held.wanted, held.asking);
      timeline_.compute(held.rank, seconds_.gather(n_handed(held)));
      if (is_other(held))
        held.handed = send(held.rank, seconds_.kv_bytes(n_handed(held)), owner(held));
    }
    attend_a_third();
    for (const Held& held : all) {
      if (!is_other(held)) continue;
      wait_for_recall(owner(held), held.handed, held.asking);
      timeline_.compute(owner(held), seconds_.kv_bytes(n_handed(held)) * copy_s_a_byte_);
    }
    for (BlockId i = first; i < end; ++i) {
      if (plan_.n_asking_rows(i) == 0) {
        finish_layer(i, layer, plan_.anchor_of(i).n_tokens);
        continue;
      }
      const std::int64_t n = rows_of(i);
      const double attention = seconds_.attend_and_merge(n, plan_.n_recalled(i)) +
                               (plan_.n_ranks() > 1 ? seconds_.gather(plan_.n_recalled(i)) : 0);
      compute(plan_.owner(i), attention + feed_forward(layer, n), n);
    }
  }

  const ModelConfig& config_;
  const BlockPlan& plan_;
  Seconds seconds_;
  Phase1Options options_;
  std::int64_t n_layers_;
  std::vector<std::vector<BlockId>> blocks_;  // by rank
  std::vector<Rank> anchor_readers_;
  double copy_s_a_byte_ = 0;  // of a group of so many ranks
  std::optional<ByteTime> recall_wait_;
  Timeline timeline_;
};

}  // namespace

Timeline phase1_timeline(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                         const Cluster& cluster, const Phase1Options& options,
                         std::int64_t n_layers) {
  return Phase1(config, plan, machine, cluster, options, n_layers).timeline();
}

}  // namespace starattn
