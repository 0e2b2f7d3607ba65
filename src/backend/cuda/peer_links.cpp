// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/peer_links.h"

#include <optional>

#include "backend/cuda/peer_memory.h"
#include "base/error.h"
#include "peer_exchange.h"

namespace starattn::cuda {
namespace {

constexpr std::size_t kLineBytes = 16;
constexpr double kWaitLimit = 10;  // seconds
constexpr int kVector = 8;         // columns of rows that travel together

// Each strip may leave half a line empty, and the greeting is one.
constexpr std::size_t kMessageBytes =
    (PeerLinks::kMostBytes / 8 + PeerLinks::kMostStrips + 1) * kLineBytes;
static_assert(PeerLinks::kMostStrips == kernels::kMostPeerStrips);

std::uint32_t words(std::size_t n_bytes) {
  STARATTN_CHECK(n_bytes % 4 == 0);
  return static_cast<std::uint32_t>(n_bytes / 4);
}

class IpcLinks : public PeerLinks {
 public:
  IpcLinks(Device& device, DeviceWeights& weights, Mail& mail, int n_ranks)
      : device_(&device), weights_(&weights), mail_(&mail), n_ranks_(n_ranks) {
    if (n_ranks > kernels::kMostPeers + 1)
      fail(Exit::unfit, "at most {} GPUs can be linked, got {}", kernels::kMostPeers + 1, n_ranks);
    // Of two exchanges that follow each other: [2, n_ranks] messages.
    mailbox_ = PeerMemory(2 * static_cast<std::size_t>(n_ranks) * kMessageBytes,
                          "a mailbox for other GPUs");
    device_->count_outside_pool(2 * static_cast<std::size_t>(n_ranks) * kMessageBytes);
    check(
        cudaHostAlloc(reinterpret_cast<void**>(&gave_up_), sizeof(*gave_up_), cudaHostAllocMapped),
        "allocating a flag");
    *gave_up_ = 0;
    set_wait_limit(kWaitLimit);
  }
  ~IpcLinks() override {
    cudaStreamSynchronize(device_->stream());
    cudaFreeHost(gave_up_);
  }

  PeerAddress address() const override { return mailbox_.address(); }

  void connect(std::span<const PeerAddress> all, int me) override {
    STARATTN_CHECK(std::ssize(all) == n_ranks_);
    me_ = me;
    for (int rank = 0; rank < n_ranks_; ++rank) {
      if (rank != me) peers_.push_back(rank);
      views_.push_back(rank == me ? PeerView() : PeerView(all[at(rank)], all[at(me)]));
      mailboxes_.push_back(rank == me ? mailbox_.data() : views_.back().data());
    }
  }

  void exchange(std::span<const std::vector<Strip>> to,
                std::span<const std::vector<Strip>> from) override {
    STARATTN_CHECK(std::ssize(to) == n_ranks_ && std::ssize(from) == n_ranks_);
    STARATTN_CHECK(!announced_ && mail_->is_empty());
    kernels::PeerExchange p;
    static_cast<kernels::PeerMeeting&>(p) = next_meeting();
    int n_strips = 0;
    const auto add = [&](const Strip& strip, std::uint32_t first_line, std::size_t peer) {
      STARATTN_CHECK(n_strips < kernels::kMostPeerStrips);
      p.strips[n_strips++] = {reinterpret_cast<std::uint32_t*>(strip.data),
                              words(strip.n_bytes()),
                              words(strip.row_bytes),
                              words(strip.stride_bytes),
                              first_line,
                              static_cast<std::uint32_t>(peer)};
    };
    const auto add_message = [&](const std::vector<Strip>& strips, std::size_t peer) {
      std::uint32_t line = 1;  // behind the greeting
      std::size_t n_bytes = 0;
      for (const Strip& strip : strips) {
        if (strip.n_bytes() == 0) continue;
        add(strip, line, peer);
        line += kernels::n_lines_of(words(strip.n_bytes()));
        n_bytes += strip.n_bytes();
      }
      STARATTN_CHECK(n_bytes <= kMostBytes);
    };
    for (std::size_t i = 0; i < peers_.size(); ++i) add_message(to[at(peers_[i])], i);
    p.n_sends = n_strips;
    for (std::size_t i = 0; i < peers_.size(); ++i) add_message(from[at(peers_[i])], i);
    p.n_receives = n_strips - p.n_sends;
    STARATTN_CHECK(to[at(me_)].size() == from[at(me_)].size());
    for (std::size_t i = 0; i < to[at(me_)].size(); ++i) {
      const Strip& source = to[at(me_)][i];
      STARATTN_CHECK(source.n_bytes() == from[at(me_)][i].n_bytes());
      if (source.n_bytes() == 0) continue;
      add(source, 0, 0);
      add(from[at(me_)][i], 0, 0);
      ++p.n_copies;
    }
    kernels::exchange_with_peers(p, device_->stream());
  }

  void announce(Rows mine, std::span<const Share> columns, Rows all) override {
    STARATTN_CHECK(!announced_ && std::ssize(columns) == n_ranks_ && mine.width % kVector == 0);
    announced_ = next_meeting();
    kernels::PeerSend to;
    to.n_peers = mine.width > 0 ? announced_->n_peers : 0;
    std::ranges::copy(announced_->there, to.there);
    if (!all.data && can_wait(mine.n_rows, columns, false))
      to.there[to.n_peers++] = message(me_, me_);
    to.flag = announced_->flag;
    to.n_columns = mine.width;
    kernels::PeerRows exchange;
    if (all.data && mine.width > 0) {
      exchange = rows_of(*announced_, mine, columns, all);
      exchange.is_sent = true;
    }
    mail_->out.announce(mine.data, to, exchange);
  }

  void exchange_rows(Rows mine, std::span<const Share> columns, Rows all, const RowNorm* norm,
                     Rows normed, Reader reader) override {
    STARATTN_CHECK(mail_->is_empty());  // what came before has been read
    STARATTN_CHECK(std::ssize(columns) == n_ranks_ && takes_rows(columns, norm != nullptr));
    STARATTN_CHECK(mine.width == columns[at(me_)].count && mine.n_rows == all.n_rows &&
                   all.width == columns.back().end());
    STARATTN_CHECK(static_cast<std::size_t>(mine.n_rows * mine.width) * size_of(Dtype::bf16) <=
                   kMostBytes);
    const Outbox::State state = mail_->out.close();
    const kernels::PeerMeeting meeting = announced_ ? *announced_ : next_meeting();
    announced_.reset();
    if (state == Outbox::State::exchanged) return;
    kernels::PeerRows p = rows_of(meeting, mine, columns, all);
    p.is_sent = state == Outbox::State::sent;
    if (norm) {
      STARATTN_CHECK(normed.n_rows == all.n_rows && normed.width == all.width &&
                     norm->weight.n_cols == all.width);
      p.weight = weights_->find(norm->weight);
      p.eps = static_cast<float>(norm->eps);
      p.normed = normed.data;
    }
    const bool may_wait =
        reader == Reader::product && p.is_sent && can_wait(p.n_rows, columns, norm != nullptr);
    may_wait ? leave(p, columns) : kernels::exchange_rows(p, device_->stream());
  }

  void announce_parts(std::span<const Partial> mine, std::span<const Share> heads) override {
    STARATTN_CHECK(!announced_ && !mine.empty() && std::ssize(heads) == n_ranks_);
    parts_wait_ = next_meeting();
    kernels::PartsSend to;
    to.n_ranks = n_ranks_;
    to.flag = parts_wait_.flag;
    for (int rank = 0; rank < n_ranks_; ++rank) {
      to.there[rank] = message(rank, me_);
      to.first_head[rank + 1] = static_cast<int>(heads[at(rank)].end());
    }
    mail_->parts.announce(mine[0].o, to);
  }
  void leave_parts(std::span<const Partial> all, std::span<const std::int64_t> n_parts,
                   const AttentionShape& own) override {
    STARATTN_CHECK(!mail_->parts.is_announced() && std::ssize(n_parts) == n_ranks_);
    const std::int64_t lines_a_row =
        own.n_heads * kernels::lines_of_value_row(static_cast<int>(own.head_dim));
    kernels::AwaitedParts parts;
    static_cast<kernels::PeerWait&>(parts) = parts_wait_;
    for (int rank = 0; rank < n_ranks_; ++rank) {  // behind the greeting
      const auto* lines = static_cast<const std::byte*>(message(me_, rank)) + kLineBytes;
      for (std::int64_t i = 0; i < n_parts[at(rank)]; ++i) {
        parts.lines[parts.n_parts++] = lines;
        lines += static_cast<std::size_t>(all[0].n_rows * lines_a_row) * kLineBytes;
      }
    }
    mail_->parts.leave(all[0].o, parts);
  }

  void set_wait_limit(double seconds) override {
    limit_ns_ = static_cast<std::uint64_t>(seconds * 1e9);
  }
  bool has_given_up() override {
    const bool has = *static_cast<volatile std::uint32_t*>(gave_up_) != 0;
    if (has) *gave_up_ = 0;
    return has;
  }

 private:
  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }
  static kernels::PeerColumns in_vectors(const Share& share) {
    return {static_cast<int>(share.first / kVector), static_cast<int>(share.count / kVector)};
  }
  kernels::PeerRows rows_of(const kernels::PeerMeeting& meeting, Rows mine,
                            std::span<const Share> columns, Rows all) const {
    kernels::PeerRows p;
    static_cast<kernels::PeerMeeting&>(p) = meeting;
    for (std::size_t i = 0; i < peers_.size(); ++i)
      p.of_peers[i] = in_vectors(columns[at(peers_[i])]);
    p.own = in_vectors(columns[at(me_)]);
    p.mine = mine.data;
    p.all = all.data;
    p.n_rows = all.n_rows;
    p.n_vectors = static_cast<int>(all.width / kVector);
    return p;
  }
  // Whether a product can wait for these rows by itself. All ranks say the same.
  static bool can_wait(std::int64_t n_rows, std::span<const Share> columns, bool behind_norm) {
    return kernels::can_await_rows(n_rows, columns.back().end() / kVector, behind_norm) &&
           std::ranges::all_of(columns, [](const Share& share) { return share.count > 0; });
  }
  // Of this exchange, which all have sent.
  void leave(const kernels::PeerRows& p, std::span<const Share> columns) {
    kernels::AwaitedRows rows;
    static_cast<kernels::PeerWait&>(rows) = p;
    rows.n_ranks = n_ranks_;
    for (int rank = 0; rank < n_ranks_; ++rank) {
      rows.here[rank] = message(me_, rank);
      rows.columns[rank] = in_vectors(columns[at(rank)]);
    }
    rows.n_rows = p.n_rows;
    rows.n_vectors = p.n_vectors;
    rows.weight = p.weight;
    rows.eps = p.eps;
    rows.rows = p.weight ? p.normed : p.all;
    mail_->in.leave(rows);
  }
  kernels::PeerMeeting next_meeting() {
    ++n_exchanges_;
    kernels::PeerMeeting meeting;
    meeting.flag = static_cast<std::uint32_t>(n_exchanges_);
    meeting.limit_ns = limit_ns_;
    meeting.gave_up = gave_up_;
    for (const int rank : peers_) {
      meeting.there[meeting.n_peers] = message(rank, me_);
      meeting.here[meeting.n_peers++] = message(me_, rank);
    }
    return meeting;
  }
  // Where `from`'s message of the current exchange lies in `to`'s mailbox.
  void* message(int to, int from) const {
    const std::size_t set = n_exchanges_ % 2;
    return mailboxes_[at(to)] + (set * at(n_ranks_) + at(from)) * kMessageBytes;
  }

  Device* device_;
  DeviceWeights* weights_;
  Mail* mail_;
  int n_ranks_;
  int me_ = 0;
  std::vector<int> peers_;  // the other ranks
  PeerMemory mailbox_;
  std::vector<PeerView> views_;        // of the others' mailboxes, by rank
  std::vector<std::byte*> mailboxes_;  // by rank, this one's among them
  std::uint32_t* gave_up_ = nullptr;   // host memory that the device reads and writes
  std::uint64_t limit_ns_ = 0;
  std::uint64_t n_exchanges_ = 0;
  kernels::PeerWait parts_wait_;                   // of the last announced parts
  std::optional<kernels::PeerMeeting> announced_;  // the last of them, which has not begun
};

}  // namespace

std::unique_ptr<PeerLinks> make_peer_links(Device& device, DeviceWeights& weights, Mail& mail,
                                           int n_ranks) {
  return std::make_unique<IpcLinks>(device, weights, mail, n_ranks);
}

}  // namespace starattn::cuda
