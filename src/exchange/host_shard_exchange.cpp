// SPDX-License-Identifier: Apache-2.0
// The window has two slots, which exchanges take in turns: whoever has announced the next exchange
// has finished with this one's slot, so the one after may write there again.
#include "exchange/host_shard_exchange.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/text.h"
#include "mpi/node_memory.h"
#include "trace/range.h"

namespace starattn {
namespace {

constexpr std::size_t kMostSlotBytes = std::size_t{16} << 20;

class HostShardExchange : public ShardExchange {
 public:
  HostShardExchange(const Communicator& group, Backend& backend, const AttentionShape& shape,
                    std::vector<Share> heads, std::int64_t max_rows, NodeMemory window)
      : ShardExchange(group, group, backend, shape, std::move(heads), max_rows),
        window_(std::move(window)),
        pinned_(backend.pin(window_.bytes())),
        counters_(reinterpret_cast<SharedCounters::Counter*>(window_.bytes().data())),
        counter_bytes_(n_ranks() * sizeof(SharedCounters::Counter)),
        slot_bytes_((window_.bytes().size() - counter_bytes_) / 2 / 64 * 64) {}

  const char* name() const override { return "through the host"; }
  bool leaves_out_host() const override { return false; }

  void gather(const std::byte* mine, std::int64_t n_rows, std::span<const Share> columns,
              std::size_t value_bytes, std::byte* all) override {
    const trace::Range range("gather columns");
    trace::message("gather columns",
                   static_cast<std::size_t>(n_rows * columns.back().end()) * value_bytes);
    const std::size_t row_bytes = static_cast<std::size_t>(columns.back().end()) * value_bytes;
    const std::size_t own_at = static_cast<std::size_t>(columns[me()].first) * value_bytes;
    const std::size_t own_bytes = static_cast<std::size_t>(columns[me()].count) * value_bytes;
    const std::int64_t n_fit = rows_that_fit(row_bytes);
    for (std::int64_t first = 0; first < n_rows; first += n_fit) {
      const auto n = static_cast<std::size_t>(std::min(n_fit, n_rows - first));
      const std::span<std::byte> rows = next_slot().first(n * row_bytes);
      const std::span<std::byte> own = staging(n * own_bytes);
      bring(mine + static_cast<std::size_t>(first) * own_bytes, own);
      for (std::size_t row = 0; row < n; ++row)
        copy(own.subspan(row * own_bytes, own_bytes), rows.data() + row * row_bytes + own_at);
      await_all();
      backend_->upload_later(rows, all + static_cast<std::size_t>(first) * row_bytes);
    }
  }

  std::vector<Partial> collect(std::span<const Partial> mine) override {
    STARATTN_CHECK(std::ssize(mine) == n_parts_[me()]);
    const trace::Range range("gather heads");
    const std::int64_t n_parts = std::accumulate(n_parts_.begin(), n_parts_.end(), std::int64_t{0});
    trace::message("gather heads", mine.size() * PartialBuffer::n_bytes(n_rows_, shape_));
    const AttentionShape own = collected_shape();
    const std::size_t whole_row = PartialBuffer::n_bytes(1, shape_);
    const std::size_t stride = aligned(PartialBuffer::n_bytes(n_rows_, own));
    grow(packed_, static_cast<std::size_t>(n_parts) * stride, /*on_host=*/true);
    grow(received_, static_cast<std::size_t>(n_parts) * stride, /*on_host=*/false);
    const std::int64_t n_fit = rows_that_fit(static_cast<std::size_t>(n_parts) * whole_row);
    const std::int64_t n_before =
        std::accumulate(n_parts_.begin(), n_parts_.begin() + group_->rank(), std::int64_t{0});
    for (std::int64_t first = 0; first < n_rows_; first += n_fit) {
      const std::int64_t n = std::min(n_fit, n_rows_ - first);
      const std::size_t part_bytes = PartialBuffer::n_bytes(n, shape_);
      std::byte* slot = next_slot().data();
      const auto message = [&](std::int64_t part) {
        return slot + static_cast<std::size_t>(part) * part_bytes;
      };
      for (std::size_t i = 0; i < mine.size(); ++i) {
        download(*backend_, slice(mine[i], first, n, shape_), shape_,
                 {message(n_before + static_cast<std::int64_t>(i)), part_bytes});
      }
      if (mine.empty()) backend_->synchronize();
      await_all();
      for (std::int64_t part = 0; part < n_parts; ++part) {
        pick_heads(PartialBuffer::over(message(part), n, shape_.n_heads, shape_.head_dim),
                   heads_[me()], slice(packed(packed_, part, stride, own), first, n, own));
      }
    }
    const std::size_t n_bytes = static_cast<std::size_t>(n_parts) * stride;
    if (own.n_heads > 0 && n_bytes > 0)
      backend_->upload_later({packed_.data(), n_bytes}, received_.data());
    std::vector<Partial> all;
    for (std::int64_t part = 0; part < n_parts; ++part)
      all.push_back(packed(received_, part, stride, own));
    return all;
  }

 private:
  static std::size_t aligned(std::size_t n_bytes) { return (n_bytes + 63) / 64 * 64; }
  static void copy(std::span<const std::byte> from, std::byte* to) {
    if (!from.empty()) std::memcpy(to, from.data(), from.size());
  }
  Partial packed(const Buffer& buffer, std::int64_t part, std::size_t stride,
                 const AttentionShape& own) const {
    return PartialBuffer::over(buffer.data() + static_cast<std::size_t>(part) * stride, n_rows_,
                               own.n_heads, own.head_dim);
  }
  // To the host, behind the uploads of the exchange before, whose slot is free then.
  void bring(const std::byte* from, std::span<std::byte> to) {
    if (to.empty()) return backend_->synchronize();
    backend_->download(from, to);
  }
  std::int64_t rows_that_fit(std::size_t row_bytes) const {
    if (row_bytes > slot_bytes_) {
      fail(Exit::unfit,
           "sharing out the weights: a row's partials take {}, and the node's memory for exchanges "
           "has room for {}. Use larger blocks, or --shard-weights off",
           human_bytes(row_bytes), human_bytes(slot_bytes_));
    }
    return row_bytes == 0 ? max_rows_ : static_cast<std::int64_t>(slot_bytes_ / row_bytes);
  }
  std::span<std::byte> next_slot() {
    ++n_exchanges_;
    return window_.bytes().subspan(counter_bytes_ + n_exchanges_ % 2 * slot_bytes_, slot_bytes_);
  }
  // This rank has written its part of the slot; now all have.
  void await_all() {
    counters_.set(me(), n_exchanges_);
    const trace::Span span("wait for shares", trace::Lane::messages);
    for (std::size_t rank = 0; rank < n_ranks(); ++rank) counters_.await(rank, n_exchanges_);
  }
  std::span<std::byte> staging(std::size_t n_bytes) {
    grow(staging_, n_bytes, /*on_host=*/true);
    return {staging_.data(), n_bytes};
  }
  void grow(Buffer& buffer, std::size_t n_bytes, bool on_host) {
    if (buffer.n_bytes() >= n_bytes) return;
    backend_->synchronize();  // what is under way reads it
    buffer = on_host ? backend_->allocate_pinned(n_bytes) : backend_->allocate(n_bytes);
  }

  NodeMemory window_;
  Buffer pinned_;  // the window, while it is registered with the device
  SharedCounters counters_;
  std::size_t counter_bytes_;
  std::size_t slot_bytes_;
  std::uint64_t n_exchanges_ = 0;
  Buffer staging_;   // this rank's columns
  Buffer packed_;    // [all parts, n_rows, this rank's heads] on the host
  Buffer received_;  // the same on the device
};

}  // namespace

std::unique_ptr<ShardExchange> make_host_shard_exchange(const Communicator& group, Backend& backend,
                                                        const AttentionShape& shape,
                                                        std::vector<Share> heads,
                                                        std::int64_t max_rows) {
  const std::size_t room = std::min(NodeMemory::room(group), 2 * kMostSlotBytes);
  std::optional<NodeMemory> window = NodeMemory::create(group, room);
  if (!window) return nullptr;
  return std::make_unique<HostShardExchange>(group, backend, shape, std::move(heads), max_rows,
                                             std::move(*window));
}

}  // namespace starattn
