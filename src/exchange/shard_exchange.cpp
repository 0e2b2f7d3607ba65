// SPDX-License-Identifier: Apache-2.0
#include "exchange/shard_exchange.h"

#include <algorithm>
#include <utility>

#include "exchange/host_shard_exchange.h"
#include "exchange/node_shard_exchange.h"
#include "exchange/peer_shard_exchange.h"

namespace starattn {

ShardExchange::ShardExchange(const Communicator& group, const Communicator& node, Backend& backend,
                             const AttentionShape& shape, std::vector<Share> heads,
                             std::int64_t max_rows)
    : StepExchange(group, backend, max_rows),
      node_(&node),
      shape_(shape),
      heads_(std::move(heads)) {
  STARATTN_CHECK(std::ssize(heads_) == node.size() && heads_.back().end() == shape.n_heads);
  for (const Share& share : heads_)
    q_columns_.push_back({share.first * shape.head_dim, share.count * shape.head_dim});
  all_q_ = RowBuffer(backend, max_rows, shape.n_heads * shape.head_dim);
}

void ShardExchange::start_step(std::vector<std::int64_t> n_rows) {
  STARATTN_CHECK((has_met_ || may_go_ahead()) && std::ssize(n_rows) == group_->size());
  n_rows_ = n_rows.front();
  STARATTN_CHECK(std::ranges::count(n_rows, n_rows_) == std::ssize(n_rows));
  STARATTN_CHECK(n_rows_ <= max_rows_);
}

Rows ShardExchange::share(Rows mine) {
  STARATTN_CHECK(mine.n_rows == n_rows_);
  has_met_ = false;
  const Rows all = all_q_.rows(n_rows_);
  gather(mine, q_columns_, all);
  return all;
}

void ShardExchange::pick_heads(Partial all, Share heads, Partial to) const {
  const std::int64_t d = shape_.head_dim;
  for (std::int64_t row = 0; row < all.n_rows; ++row) {
    const std::int64_t from = row * shape_.n_heads + heads.first;
    std::copy_n(all.o + from * d, heads.count * d, to.o + row * heads.count * d);
    std::copy_n(all.m + from, heads.count, to.m + row * heads.count);
    std::copy_n(all.l + from, heads.count, to.l + row * heads.count);
  }
}

std::unique_ptr<ShardExchange> make_shard_exchange(const Communicator& group,
                                                   const Communicator& node, Backend& backend,
                                                   const AttentionShape& shape,
                                                   std::vector<Share> heads, std::int64_t max_rows,
                                                   std::unique_ptr<PeerLinks> links) {
  std::unique_ptr<ShardExchange> within;
  const bool has_nodes = group.any(node.size() < group.size());
  if (links) {
    within = make_peer_shard_exchange(node, backend, shape, heads, max_rows, std::move(links));
  } else if (!has_nodes || node.size() > 1) {
    within = make_host_shard_exchange(node, backend, shape, heads, max_rows);
  }
  if (group.any(!within && (!has_nodes || node.size() > 1))) {
    throw AgreedError(Exit::unfit,
                      "sharing out the weights: a node's /dev/shm has no room for exchanges; "
                      "make it larger, or use --shard-weights off");
  }
  if (!has_nodes) return within;
  return make_node_shard_exchange(group, node, backend, shape, std::move(heads), max_rows,
                                  std::move(within));
}

std::unique_ptr<PeerLinks> connect_peers(const Communicator& group, Backend& backend,
                                         bool on_one_device) {
  std::unique_ptr<PeerLinks> links;
  collectively(group, [&] {
    links = backend.make_peer_links(group.size());
    if (!links) fail(Exit::unfit, "{} has no links to other devices", backend.describe());
  });
  PeerAddress mine;
  collectively(group, [&] { mine = links->address(); });
  const std::vector<PeerAddress> all = group.allgather(mine);
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (all[i].device == all[j].device && !on_one_device)
        throw AgreedError(Exit::unfit,
                          fmt::format("ranks {} and {} share GPU {}", j, i, all[i].device.data()));
    }
  }
  collectively(group, [&] { links->connect(all, group.rank()); });
  return links;
}

}  // namespace starattn
