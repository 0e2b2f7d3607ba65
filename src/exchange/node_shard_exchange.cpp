// SPDX-License-Identifier: Apache-2.0
#include "exchange/node_shard_exchange.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "trace/range.h"

namespace starattn {
namespace {

constexpr int kPartsTag = 112;

class NodeShardExchange : public ShardExchange {
 public:
  NodeShardExchange(const Communicator& group, const Communicator& node, Backend& backend,
                    const AttentionShape& shape, std::vector<Share> heads, std::int64_t max_rows,
                    std::unique_ptr<ShardExchange> within)
      : ShardExchange(group, node, backend, shape, std::move(heads), max_rows),
        within_(std::move(within)) {
    const Member mine{node.bcast_value(group.rank(), 0), heads_[me()]};
    members_ = group.allgather(mine);
    for (Rank rank = 0; rank < group.size(); ++rank) {
      if (member(rank).leader == rank) leaders_.push_back(rank);
      if (rank == mine.leader) number_ = static_cast<int>(leaders_.size()) - 1;
    }
    first_row_.assign(leaders_.size() + 1, 0);
  }

  const char* name() const override { return within_ ? within_->name() : "not needed"; }
  int n_nodes() const override { return static_cast<int>(leaders_.size()); }
  int node_number() const override { return number_; }

  void gather(const std::byte* mine, std::int64_t n_rows, std::span<const Share> columns,
              std::size_t value_bytes, std::byte* all) override {
    if (within_) return within_->gather(mine, n_rows, columns, value_bytes, all);
    const auto width =
        static_cast<std::int64_t>(static_cast<std::size_t>(columns.back().end()) * value_bytes /
                                  size_of(backend_->activation_dtype()));
    // Nobody changes what is only read.
    backend_->copy_columns({const_cast<std::byte*>(mine), n_rows, width}, 0, {all, n_rows, width});
  }
  void gather(Rows mine, std::span<const Share> columns, Rows all, Reader reader) override {
    within_ ? within_->gather(mine, columns, all, reader)
            : ShardExchange::gather(mine, columns, all);
  }
  void gather_normed(Rows mine, std::span<const Share> columns, const RowNorm& norm, Rows all,
                     Rows normed, Reader reader) override {
    if (within_) return within_->gather_normed(mine, columns, norm, all, normed, reader);
    ShardExchange::gather_normed(mine, columns, norm, all, normed);
  }
  void announce(Rows mine, std::span<const Share> columns) override {
    if (within_) within_->announce(mine, columns);
  }
  void set_wait_limit(double seconds) override {
    if (within_) within_->set_wait_limit(seconds);
  }
  bool has_given_up() override { return within_ && within_->has_given_up(); }

  void start_step(std::vector<std::int64_t> n_rows) override {
    STARATTN_CHECK(has_met_ && std::ssize(n_rows) == group_->size());
    for (std::size_t i = 0; i < leaders_.size(); ++i)
      first_row_[i + 1] = first_row_[i] + n_rows[static_cast<std::size_t>(leaders_[i])];
    for (Rank rank = 0; rank < group_->size(); ++rank)
      STARATTN_CHECK(n_rows[static_cast<std::size_t>(rank)] == n_rows_of(rank));
    n_rows_ = first_row_.back();
    STARATTN_CHECK(n_rows_ <= max_rows_);
  }
  std::int64_t n_rows_of(Rank rank) const override {
    const std::size_t node = node_of(rank);
    return first_row_[node + 1] - first_row_[node];
  }

  Rows share(Rows mine) override {
    STARATTN_CHECK(mine.n_rows == n_rows_of(group_->rank()));
    has_met_ = false;
    const trace::Range range("share queries");
    const Rows of_node = all_q_.rows(first_row_[node_of(group_->rank())], mine.n_rows);
    if (mine.n_rows > 0) gather(mine, q_columns_, of_node, Reader::any);
    const Rows all = all_q_.rows(n_rows_);
    const std::size_t row_bytes = backend_->raw(all).row_bytes;
    std::vector<std::size_t> counts(static_cast<std::size_t>(group_->size()), 0);
    for (const Rank leader : leaders_)
      counts[static_cast<std::size_t>(leader)] =
          static_cast<std::size_t>(n_rows_of(leader)) * row_bytes;
    const std::span<std::byte> rows =
        pinned(queries_, static_cast<std::size_t>(n_rows_) * row_bytes);
    const std::span<std::byte> own =
        pinned(outgoing_, counts[static_cast<std::size_t>(group_->rank())]);
    if (own.empty()) {
      backend_->synchronize();  // what is uploaded from queries_
    } else {
      backend_->download(of_node.data, own);
    }
    trace::message("share queries", rows.size());
    {
      const trace::Span span("wait for queries", trace::Lane::messages);
      const auto only = std::ranges::find(counts, rows.size());
      if (only == counts.end()) {
        group_->allgatherv(own, counts, rows);
      } else {
        group_->bcast(own.empty() ? rows : own, static_cast<Rank>(only - counts.begin()));
      }
    }
    if (mine.n_rows < n_rows_) backend_->upload_later(rows, all.data);
    return all;
  }

  std::vector<Partial> collect(std::span<const Partial> mine) override {
    const trace::Range range("gather heads");
    const Rank here = group_->rank();
    STARATTN_CHECK(std::ssize(mine) == n_parts_of(here));
    const std::size_t whole_bytes = PartialBuffer::n_bytes(n_rows_, shape_);
    const std::span<std::byte> whole = pinned(whole_, mine.size() * whole_bytes);
    for (std::size_t i = 0; i < mine.size(); ++i)
      download(*backend_, mine[i], shape_, whole.subspan(i * whole_bytes, whole_bytes));

    std::size_t n_incoming = 0, n_outgoing = 0;
    for (Rank rank = 0; rank < group_->size(); ++rank) {
      n_incoming += message_bytes(rank, here);
      n_outgoing += message_bytes(here, rank);
    }
    const std::span<std::byte> incoming = pinned(incoming_, n_incoming);
    const std::span<std::byte> outgoing = pinned(outgoing_, n_outgoing);
    trace::message("gather heads", n_outgoing);
    std::span<std::byte> own;  // of its own parts, where they arrive
    Requests requests;
    std::size_t at = 0;
    for (Rank from = 0; from < group_->size(); ++from) {
      const std::span<std::byte> message = incoming.subspan(at, message_bytes(from, here));
      at += message.size();
      if (from == here) own = message;
      if (from != here && !message.empty()) group_->irecv(message, from, kPartsTag, requests);
    }
    at = 0;
    for (Rank to = 0; to < group_->size(); ++to) {
      const std::span<std::byte> message = outgoing.subspan(at, message_bytes(here, to));
      at += message.size();
      pack(whole, mine.size(), to, to == here ? own : message);
      if (to != here && !message.empty()) group_->isend(message, to, kPartsTag, requests);
    }
    {
      const trace::Span span("wait for partials", trace::Lane::messages);
      requests.wait();
    }
    return on_device(incoming);
  }

 private:
  struct Member {
    Rank leader = 0;  // the first rank of its node
    Share heads;
  };
  const Member& member(Rank rank) const { return members_[static_cast<std::size_t>(rank)]; }
  std::size_t node_of(Rank rank) const {
    return static_cast<std::size_t>(std::ranges::find(leaders_, member(rank).leader) -
                                    leaders_.begin());
  }
  std::int64_t n_parts_of(Rank rank) const { return n_parts_[static_cast<std::size_t>(rank)]; }
  // Of one part: `to`'s rows and heads, so long that the next begins where the kernels' vectors
  // may.
  std::size_t part_bytes(Rank to) const {
    const std::int64_t n_heads = member(to).heads.count;
    const std::size_t n_bytes =
        PartialBuffer::n_bytes(n_rows_of(to), {n_heads, n_heads, shape_.head_dim});
    return (n_bytes + 15) / 16 * 16;
  }
  std::size_t message_bytes(Rank from, Rank to) const {
    return static_cast<std::size_t>(n_parts_of(from)) * part_bytes(to);
  }

  void pack(std::span<std::byte> whole, std::size_t n_parts, Rank to,
            std::span<std::byte> message) const {
    if (message.empty()) return;
    const Share heads = member(to).heads;
    const std::int64_t n = n_rows_of(to);
    for (std::size_t i = 0; i < n_parts; ++i) {
      const Partial all = PartialBuffer::over(whole.data() + i * whole.size() / n_parts, n_rows_,
                                              shape_.n_heads, shape_.head_dim);
      pick_heads(slice(all, first_row_[node_of(to)], n, shape_), heads,
                 PartialBuffer::over(message.data() + i * part_bytes(to), n, heads.count,
                                     shape_.head_dim));
    }
  }

  std::vector<Partial> on_device(std::span<const std::byte> incoming) {
    if (received_.n_bytes() < incoming.size()) received_ = backend_->allocate(incoming.size());
    backend_->upload_later(incoming, received_.data());
    const Rank here = group_->rank();
    const std::int64_t n_all =
        incoming.empty() ? 0 : std::accumulate(n_parts_.begin(), n_parts_.end(), std::int64_t{0});
    std::vector<Partial> all;
    for (std::int64_t i = 0; i < n_all; ++i)
      all.push_back(
          PartialBuffer::over(received_.data() + static_cast<std::size_t>(i) * part_bytes(here),
                              n_rows_of(here), heads_[me()].count, shape_.head_dim));
    return all;
  }

  std::span<std::byte> pinned(Buffer& buffer, std::size_t n_bytes) {
    if (buffer.n_bytes() < n_bytes) {
      backend_->synchronize();  // what is under way reads it
      buffer = backend_->allocate_pinned(n_bytes);
    }
    return {buffer.data(), n_bytes};
  }

  std::unique_ptr<ShardExchange> within_;
  std::vector<Member> members_;  // by rank of the group
  std::vector<Rank> leaders_;    // by node
  int number_ = 0;
  std::vector<std::int64_t> first_row_;           // of each node's rows in this step; last: all
  Buffer queries_, whole_, outgoing_, incoming_;  // pinned, grown as needed
  Buffer received_;                               // [all parts][o | m | l] as incoming_
};

}  // namespace

std::unique_ptr<ShardExchange> make_node_shard_exchange(const Communicator& group,
                                                        const Communicator& node, Backend& backend,
                                                        const AttentionShape& shape,
                                                        std::vector<Share> heads,
                                                        std::int64_t max_rows,
                                                        std::unique_ptr<ShardExchange> within) {
  return std::make_unique<NodeShardExchange>(group, node, backend, shape, std::move(heads),
                                             max_rows, std::move(within));
}

}  // namespace starattn
