// SPDX-License-Identifier: Apache-2.0
// Phase 2's exchange: Q to everyone, partial attention per block, partials back, the canonical
// merge.
#include <algorithm>
#include <deque>
#include <numeric>

#include "obs/range.h"
#include "star/answer.h"

namespace starattn {
namespace {

constexpr int kSubtreeTag = 111;
constexpr std::size_t kBlocksAtOnce = 8;  // bounds the memory of partials that are not merged yet

using SubtreePartials = std::vector<std::pair<MergeNode, PartialBuffer>>;

std::int64_t sum(std::span<const std::int64_t> numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), std::int64_t{0});
}

// Each rank's rows, n_rows[rank] of them, to everybody, in rank order.
void share_rows(const Communicator& group, Backend& backend, Rows mine,
                std::span<const std::int64_t> n_rows, Rows all) {
  const std::size_t row_bytes =
      static_cast<std::size_t>(all.width) * size_of(backend.activation_dtype());
  std::vector<std::size_t> counts;
  for (const std::int64_t n : n_rows) counts.push_back(static_cast<std::size_t>(n) * row_bytes);
  std::vector<std::byte> send(static_cast<std::size_t>(mine.n_rows) * row_bytes);
  std::vector<std::byte> receive(static_cast<std::size_t>(all.n_rows) * row_bytes);
  backend.download(mine.data, send);
  if (counts[0] == receive.size()) {  // all of them are rank 0's
    if (group.is_root()) receive = std::move(send);
    group.bcast(receive, 0);
  } else {
    group.allgatherv(send, counts, receive);
  }
  backend.upload(receive, all.data);
}

// Rows of a partial as they travel: o | m | l. `to` has PartialBuffer::n_bytes of these rows.
void copy_rows(Backend& backend, Partial rows, const AttentionShape& shape,
               std::span<std::byte> to) {
  const std::size_t n_heads = static_cast<std::size_t>(rows.n_rows * shape.n_heads);
  const std::size_t m_bytes = n_heads * sizeof(float);
  const std::size_t o_bytes = m_bytes * static_cast<std::size_t>(shape.head_dim);
  backend.download(reinterpret_cast<const std::byte*>(rows.o), to.first(o_bytes));
  backend.download(reinterpret_cast<const std::byte*>(rows.m), to.subspan(o_bytes, m_bytes));
  backend.download(reinterpret_cast<const std::byte*>(rows.l),
                   to.subspan(o_bytes + m_bytes, m_bytes));
}

}  // namespace

void Answerer::attend_to_context(std::int64_t layer, Rows q) {
  const std::int64_t n_all = sum(n_rows_);
  const bool alone = group_->size() == 1;
  const Rows all_q = alone ? q : all_q_.rows(n_all);
  if (!alone) {
    const obs::Range range("share queries");
    share_rows(*group_, *backend_, q, n_rows_, all_q);
  }
  SubtreePartials mine;
  {
    const obs::Range range("partial attention");
    const std::vector<BlockId> blocks = kv_->plan.blocks_of(group_->rank());
    std::deque<PartialBuffer> ahead;  // of the next blocks
    std::span<const KvSegment> segments = feed_.layer(layer);
    mine = merge_subtrees<PartialBuffer>(
        blocks,
        [&](BlockId) {
          if (ahead.empty()) {
            const std::size_t n = std::min(kBlocksAtOnce, segments.size());
            std::vector<Partial> parts;
            for (std::size_t i = 0; i < n; ++i)
              parts.push_back(ahead.emplace_back(*backend_, n_all, shape_).partial());
            backend_->attend_blocks(all_q, segments.first(n), shape_, parts);
            segments = segments.subspan(n);
          }
          PartialBuffer buffer = std::move(ahead.front());
          ahead.pop_front();
          return buffer;
        },
        [&](PartialBuffer& a, PartialBuffer& b) {
          backend_->merge(a.partial(), b.partial(), shape_);
        });
  }
  const obs::Range range("gather and merge");
  if (alone) {
    merge_to_root<PartialBuffer>(mine, kv_->plan.n_blocks(), [&](auto& a, auto& b) {
      backend_->merge(a.partial(), b.partial(), shape_);
    });
    context_partial_ = std::move(mine.front().second);
  } else if (options_.tree_merge) {
    merge_along_tree(std::move(mine));
  } else {
    gather_and_merge(std::move(mine));
  }
}

void Answerer::gather_and_merge(SubtreePartials mine) {
  const auto merge = [&](PartialBuffer& a, PartialBuffer& b) {
    backend_->merge(a.partial(), b.partial(), shape_);
  };
  std::int64_t first_row = 0;
  for (Rank query_rank = 0; query_rank < group_->size(); ++query_rank) {
    const std::int64_t n = n_rows_[static_cast<std::size_t>(query_rank)];
    if (n == 0) continue;
    const std::size_t node_bytes = PartialBuffer::n_bytes(n, shape_);
    std::vector<std::byte> message(mine.size() * node_bytes);
    for (std::size_t i = 0; i < mine.size(); ++i) {
      copy_rows(*backend_, slice(mine[i].second.partial(), first_row, n, shape_), shape_,
                std::span(message).subspan(i * node_bytes, node_bytes));
    }
    std::vector<std::size_t> counts;
    for (const auto& nodes : subtrees_by_rank_) counts.push_back(nodes.size() * node_bytes);
    const bool is_mine = query_rank == group_->rank();
    std::vector<std::byte> received(
        is_mine ? std::accumulate(counts.begin(), counts.end(), std::size_t{0}) : 0);
    group_->gatherv(message, counts, received, query_rank);
    obs::count_bytes("gather and merge", message.size());
    first_row += n;
    if (!is_mine) continue;

    SubtreePartials all;
    std::size_t at = 0;
    for (const auto& nodes : subtrees_by_rank_) {
      for (const MergeNode& node : nodes) {
        PartialBuffer buffer(*backend_, n, shape_);
        backend_->upload(std::span(received).subspan(at, node_bytes), buffer.data());
        all.emplace_back(node, std::move(buffer));
        at += node_bytes;
      }
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return a.first.first_block() < b.first.first_block();
    });
    merge_to_root<PartialBuffer>(all, kv_->plan.n_blocks(), merge);
    context_partial_ = std::move(all.front().second);
  }
}

// The same tree with the same bits, for many ranks: a node is merged where its first block lives,
// and the root's owner hands each query rank its rows. Nobody receives more than log2(blocks)
// messages a node, where a gather would bring all of them to one rank.
void Answerer::merge_along_tree(SubtreePartials mine) {
  const std::int64_t n_blocks = kv_->plan.n_blocks();
  const std::int64_t n_all = sum(n_rows_);
  const std::size_t node_bytes = PartialBuffer::n_bytes(n_all, shape_);
  const auto holder = [&](MergeNode node) { return kv_->plan.owner(node.first_block()); };
  const auto is_whole = [&](MergeNode node) {  // one rank made this subtree by itself
    const auto& nodes = subtrees_by_rank_[static_cast<std::size_t>(holder(node))];
    return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
  };
  const auto position = [&](MergeNode node) {
    return std::find_if(mine.begin(), mine.end(),
                        [&](const auto& entry) { return entry.first == node; });
  };
  const std::function<void(MergeNode)> reduce = [&](MergeNode node) {
    if (is_whole(node)) return;
    reduce(node.left());
    const bool has_right = node.right().first_block() < n_blocks;
    if (has_right) reduce(node.right());
    const Rank here = holder(node);
    const Rank there = has_right ? holder(node.right()) : here;
    if (has_right && there == group_->rank() && there != here) {
      std::vector<std::byte> message(node_bytes);
      copy_rows(*backend_, position(node.right())->second.partial(), shape_, message);
      group_->send(message, here, kSubtreeTag);
    }
    if (here != group_->rank()) return;
    if (has_right && there != here) {
      std::vector<std::byte> message(node_bytes);
      group_->recv(message, there, kSubtreeTag);
      PartialBuffer right(*backend_, n_all, shape_);
      backend_->upload(message, right.data());
      backend_->merge(position(node.left())->second.partial(), right.partial(), shape_);
    } else if (has_right) {
      backend_->merge(position(node.left())->second.partial(),
                      position(node.right())->second.partial(), shape_);
    }
    position(node.left())->first = node;
  };
  reduce(root_of(n_blocks));

  const Rank top = holder(root_of(n_blocks));
  std::int64_t first_row = 0;
  for (Rank query_rank = 0; query_rank < group_->size(); ++query_rank) {
    const std::int64_t n = n_rows_[static_cast<std::size_t>(query_rank)];
    if (n == 0) continue;
    std::vector<std::byte> message(PartialBuffer::n_bytes(n, shape_));
    if (group_->rank() == top) {
      copy_rows(*backend_,
                slice(position(root_of(n_blocks))->second.partial(), first_row, n, shape_), shape_,
                message);
      if (query_rank != top) group_->send(message, query_rank, kSubtreeTag);
    } else if (group_->rank() == query_rank) {
      group_->recv(message, top, kSubtreeTag);
    }
    first_row += n;
    if (group_->rank() != query_rank) continue;
    context_partial_ = PartialBuffer(*backend_, n, shape_);
    backend_->upload(message, context_partial_.data());
  }
}

}  // namespace starattn
