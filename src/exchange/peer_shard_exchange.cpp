// SPDX-License-Identifier: Apache-2.0
#include "exchange/peer_shard_exchange.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace starattn {
namespace {

class PeerShardExchange : public ShardExchange {
 public:
  PeerShardExchange(const Communicator& group, Backend& backend, const AttentionShape& shape,
                    std::vector<Share> heads, std::int64_t max_rows,
                    std::unique_ptr<PeerLinks> links)
      : ShardExchange(group, group, backend, shape, std::move(heads), max_rows),
        links_(std::move(links)),
        to_(n_ranks()),
        from_(n_ranks()) {}

  const char* name() const override { return "from device to device"; }
  bool may_go_ahead() const override { return true; }

  void gather(const std::byte* mine, std::int64_t n_rows, std::span<const Share> columns,
              std::size_t value_bytes, std::byte* all) override {
    const std::size_t stride = static_cast<std::size_t>(columns.back().end()) * value_bytes;
    std::size_t widest = 1;  // bytes of a row
    for (const Share& share : columns)
      widest = std::max(widest, static_cast<std::size_t>(share.count) * value_bytes);
    const auto n_fit = static_cast<std::int64_t>(PeerLinks::kMostBytes / widest);
    if (n_fit == 0) {
      fail(Exit::unfit,
           "sharing out the weights: a rank's columns of a row take {}, and GPUs exchange at most "
           "{} "
           "at once. Use more ranks, or --shard-weights off",
           human_bytes(widest), human_bytes(PeerLinks::kMostBytes));
    }
    for (std::int64_t first = 0; first < n_rows; first += n_fit) {
      const std::int64_t n = std::min(n_fit, n_rows - first);
      const std::size_t own = static_cast<std::size_t>(columns[me()].count) * value_bytes;
      // Nobody changes what is only read.
      auto* rows = const_cast<std::byte*>(mine) + static_cast<std::size_t>(first) * own;
      std::byte* at = all + static_cast<std::size_t>(first) * stride;
      for (std::size_t rank = 0; rank < n_ranks(); ++rank) {
        const auto left = static_cast<std::size_t>(columns[rank].first) * value_bytes;
        const auto width = static_cast<std::size_t>(columns[rank].count) * value_bytes;
        to_[rank].assign(1, {rows, n, own, own});
        from_[rank].assign(1, {at + left, n, width, stride});
      }
      links_->exchange(to_, from_);
    }
  }

  void announce(Rows mine, std::span<const Share> columns) override {
    if (PeerLinks::takes_rows(columns, /*behind_norm=*/false) &&
        mine.n_rows <= rows_at_once(columns))
      links_->announce(mine, columns);
  }
  void announce_queries(Rows mine) override {
    if (PeerLinks::takes_rows(q_columns_, /*behind_norm=*/false) &&
        mine.n_rows <= rows_at_once(q_columns_))
      links_->announce(mine, q_columns_, all_q_.rows(n_rows_));
  }
  void gather(Rows mine, std::span<const Share> columns, Rows all, Reader reader) override {
    exchange_rows(mine, columns, nullptr, all, {}, reader);
  }
  void gather_normed(Rows mine, std::span<const Share> columns, const RowNorm& norm, Rows all,
                     Rows normed, Reader reader) override {
    if (PeerLinks::takes_rows(columns, /*behind_norm=*/true))
      return exchange_rows(mine, columns, &norm, all, normed, reader);
    ShardExchange::gather_normed(mine, columns, norm, all, normed);
  }

  void announce_parts(std::span<const Partial> mine) override {
    are_parts_sent_ = PeerLinks::takes_parts(n_rows_, heads_, n_parts_, shape_.head_dim);
    if (are_parts_sent_) links_->announce_parts(mine, heads_);
  }
  std::vector<Partial> collect(std::span<const Partial> mine) override {
    STARATTN_CHECK(std::ssize(mine) == n_parts_[me()]);
    const AttentionShape own = collected_shape();
    const std::size_t stride = (PartialBuffer::n_bytes(n_rows_, own) + 15) / 16 * 16;
    std::size_t n_parts = 0;
    for (const std::int64_t n : n_parts_) n_parts += static_cast<std::size_t>(n);
    if (received_.n_bytes() < n_parts * stride) {
      backend_->synchronize();  // what is under way reads it
      received_ = backend_->allocate(n_parts * stride);
    }
    std::vector<Partial> all;
    for (std::size_t i = 0; i < n_parts; ++i)
      all.push_back(
          PartialBuffer::over(received_.data() + i * stride, n_rows_, own.n_heads, own.head_dim));
    if (std::exchange(are_parts_sent_, false)) {
      links_->leave_parts(all, n_parts_, own);
      return all;
    }
    // A few parts of each rank and some of their rows at a time, as many as an exchange takes.
    const std::size_t n_strips_a_part = 3 * 2 * n_ranks();
    const auto parts_at_once = static_cast<std::int64_t>(
        std::max<std::size_t>(1, PeerLinks::kMostStrips / n_strips_a_part));
    std::int64_t most_heads = 1;
    for (const Share& share : heads_) most_heads = std::max(most_heads, share.count);
    const std::size_t row_bytes =
        static_cast<std::size_t>(parts_at_once) *
        PartialBuffer::n_bytes(1, {most_heads, shape_.n_kv_heads, shape_.head_dim});
    const auto rows_at_once = static_cast<std::int64_t>(PeerLinks::kMostBytes / row_bytes);
    STARATTN_CHECK(rows_at_once > 0);
    const std::int64_t most_parts = std::ranges::max(n_parts_);
    for (std::int64_t part = 0; part < most_parts; part += parts_at_once) {
      for (std::int64_t row = 0; row < n_rows_; row += rows_at_once) {
        const std::int64_t n = std::min(rows_at_once, n_rows_ - row);
        exchange_parts(mine, all, part, part + parts_at_once, row, n);
      }
    }
    return all;
  }

  void set_wait_limit(double seconds) override { links_->set_wait_limit(seconds); }
  bool has_given_up() override { return links_->has_given_up(); }

 private:
  std::int64_t rows_at_once(std::span<const Share> columns) const {
    const std::size_t row_bytes =
        static_cast<std::size_t>(columns.back().end()) * size_of(backend_->activation_dtype());
    return static_cast<std::int64_t>(PeerLinks::kMostBytes / row_bytes);
  }
  // Behind a norm if there is one.
  void exchange_rows(Rows mine, std::span<const Share> columns, const RowNorm* norm, Rows all,
                     Rows normed, Reader reader) {
    const std::int64_t n_fit = rows_at_once(columns);
    if (n_fit == 0 || !PeerLinks::takes_rows(columns, norm != nullptr))
      return ShardExchange::gather(mine, columns, all);
    const std::size_t value_bytes = size_of(backend_->activation_dtype());
    for (std::int64_t first = 0; first < all.n_rows; first += n_fit) {
      const auto some = [&](Rows rows) {
        return Rows{rows.data + static_cast<std::size_t>(first * rows.width) * value_bytes,
                    std::min(n_fit, all.n_rows - first), rows.width};
      };
      links_->exchange_rows(some(mine), columns, some(all), norm, norm ? some(normed) : Rows{},
                            reader);
    }
  }
  // Parts first to end - 1 of each rank, and of them n rows.
  void exchange_parts(std::span<const Partial> mine, std::span<const Partial> all,
                      std::int64_t first, std::int64_t end, std::int64_t row, std::int64_t n) {
    const AttentionShape own = collected_shape();
    std::size_t part_of_all = 0;
    for (std::size_t rank = 0; rank < n_ranks(); ++rank) {
      to_[rank].clear();
      from_[rank].clear();
      for (std::int64_t i = first; i < std::min(end, n_parts_[me()]); ++i) {
        add_strips(slice(mine[static_cast<std::size_t>(i)], row, n, shape_), shape_.n_heads,
                   heads_[rank], to_[rank]);
      }
      for (std::int64_t i = first; i < std::min(end, n_parts_[rank]); ++i) {
        add_strips(slice(all[part_of_all + static_cast<std::size_t>(i)], row, n, own), own.n_heads,
                   {0, own.n_heads}, from_[rank]);
      }
      part_of_all += static_cast<std::size_t>(n_parts_[rank]);
    }
    links_->exchange(to_, from_);
  }

  // Some heads of a partial that has n_heads of them.
  void add_strips(Partial part, std::int64_t n_heads, Share heads, std::vector<Strip>& strips) {
    const auto add = [&](float* values, std::int64_t a_head) {
      const auto bytes = static_cast<std::size_t>(a_head) * sizeof(float);
      strips.push_back({reinterpret_cast<std::byte*>(values + heads.first * a_head), part.n_rows,
                        static_cast<std::size_t>(heads.count) * bytes,
                        static_cast<std::size_t>(n_heads) * bytes});
    };
    add(part.o, shape_.head_dim);
    add(part.m, 1);
    add(part.l, 1);
  }

  std::unique_ptr<PeerLinks> links_;
  std::vector<std::vector<Strip>> to_, from_;  // by rank
  bool are_parts_sent_ = false;                // of the layer
  Buffer received_;                            // [all parts][o | m | l of this rank's heads]
};

}  // namespace

std::unique_ptr<ShardExchange> make_peer_shard_exchange(const Communicator& group, Backend& backend,
                                                        const AttentionShape& shape,
                                                        std::vector<Share> heads,
                                                        std::int64_t max_rows,
                                                        std::unique_ptr<PeerLinks> links) {
  return std::make_unique<PeerShardExchange>(group, backend, shape, std::move(heads), max_rows,
                                             std::move(links));
}

}  // namespace starattn
