// SPDX-License-Identifier: Apache-2.0
#include "exchange/query_exchange.h"

#include <algorithm>
#include <numeric>

#include "trace/range.h"

namespace starattn {
namespace {

constexpr std::size_t kMostWindowBytes = std::size_t{32} << 20;

std::span<std::byte> grown(Buffer& buffer, std::size_t n_bytes, auto allocate) {
  if (buffer.n_bytes() < n_bytes) buffer = allocate(n_bytes);
  return {buffer.data(), n_bytes};
}

}  // namespace

QueryExchange::QueryExchange(const Communicator& group, const Communicator& node, Backend& backend,
                             const AttentionShape& shape, std::int64_t max_rows)
    : StepExchange(group, backend, max_rows),
      shape_(shape),
      row_bytes_(static_cast<std::size_t>(shape.n_heads * shape.head_dim) *
                 size_of(backend.activation_dtype())),
      n_parts_(static_cast<std::size_t>(group.size()), 0),
      first_row_(n_parts_.size() + 1, 0) {
  if (group.size() == 1) return;
  all_ = RowBuffer(backend, max_rows, shape.n_heads * shape.head_dim);
  if (node.size() == group.size()) open_window(node);
}

void QueryExchange::start_document(std::vector<std::int64_t> n_parts) {
  STARATTN_CHECK(std::ssize(n_parts) == group_->size());
  n_parts_ = std::move(n_parts);
  if (window_) lay_out_window();
}

void QueryExchange::start_step(std::vector<std::int64_t> n_rows) {
  STARATTN_CHECK((has_met_ || may_go_ahead()) && std::ssize(n_rows) == group_->size());
  std::partial_sum(n_rows.begin(), n_rows.end(), first_row_.begin() + 1);
  STARATTN_CHECK(first_row_.back() <= max_rows_);
}

Rows QueryExchange::share(Rows mine) {
  STARATTN_CHECK(mine.n_rows == n_rows_of(group_->rank()));
  has_met_ = false;
  if (group_->size() == 1) return mine;
  const trace::Range range("share queries");
  // Whoever brings all rows, or has no partials to make, needs no other's.
  const bool takes_rows = n_parts_of(group_->rank()) > 0 && mine.n_rows < n_rows();
  const std::span<std::byte> rows =
      is_in_window() ? share_in_window(mine, takes_rows) : share_by_messages(mine);
  trace::message("share queries",
                 takes_rows ? rows.size() : static_cast<std::size_t>(mine.n_rows) * row_bytes_);
  if (!takes_rows) return mine;
  const Rows all = all_.rows(n_rows());
  backend_->upload_later(rows, all.data);
  return all;
}

std::vector<Partial> QueryExchange::collect(std::span<const Partial> mine) {
  STARATTN_CHECK(std::ssize(mine) == n_parts_of(group_->rank()));
  if (group_->size() == 1) return {mine.begin(), mine.end()};
  if (is_in_window()) {
    hand_over_in_window(mine);
  } else {
    hand_over_by_messages(mine);
  }
  const Rank me = group_->rank();
  const std::int64_t n = n_rows_of(me);
  std::vector<Partial> all;
  if (n == 0) return all;
  // Each partial begins where the kernels' vectors may.
  constexpr std::size_t kAlignment = 16;
  const std::size_t n_bytes = part_bytes(n);
  const std::size_t stride = (n_bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::size_t n_others = 0;
  for (Rank from = 0; from < group_->size(); ++from)
    if (from != me) n_others += static_cast<std::size_t>(n_parts_of(from));
  const auto on_device = [&](std::size_t size) { return backend_->allocate(size); };
  std::byte* at = grown(received_, n_others * stride, on_device).data();
  for (Rank from = 0; from < group_->size(); ++from) {
    if (from == me) {
      for (const Partial& part : mine) all.push_back(slice(part, first_row_of(me), n, shape_));
      continue;
    }
    if (n_parts_of(from) == 0) continue;
    if (is_in_window()) await(from, Stage::parts);
    const auto message = is_in_window() ? message_in_window(from, me) : arrived_from(from);
    for (std::size_t sent = 0; sent < message.size(); sent += n_bytes, at += stride) {
      backend_->upload_later(message.subspan(sent, n_bytes), at);
      all.push_back(PartialBuffer::over(at, n, shape_.n_heads, shape_.head_dim));
    }
  }
  return all;
}

void QueryExchange::pack(std::span<const Partial> mine, Rank to, std::span<std::byte> message) {
  const std::size_t n_bytes = part_bytes(n_rows_of(to));
  for (std::size_t i = 0; i < mine.size(); ++i) {
    download(*backend_, slice(mine[i], first_row_of(to), n_rows_of(to), shape_), shape_,
             message.subspan(i * n_bytes, n_bytes));
  }
  trace::count_bytes("gather and merge", message.size());
}

std::size_t QueryExchange::bytes_for(Rank to) const {
  std::size_t n_bytes = 0;
  for (Rank from = 0; from < group_->size(); ++from)
    if (from != to) n_bytes += message_bytes(from, to);
  return n_bytes;
}

// --- between nodes: messages

std::span<std::byte> QueryExchange::pinned(Buffer& buffer, std::size_t n_bytes) {
  return grown(buffer, n_bytes, [&](std::size_t size) { return backend_->allocate_pinned(size); });
}

std::span<std::byte> QueryExchange::share_by_messages(Rows mine) {
  const std::span<std::byte> rows =
      pinned(queries_, static_cast<std::size_t>(n_rows()) * row_bytes_);
  const std::span<std::byte> own =
      pinned(outgoing_, static_cast<std::size_t>(mine.n_rows) * row_bytes_);
  backend_->download(mine.data, own);
  std::vector<std::size_t> counts;
  for (Rank rank = 0; rank < group_->size(); ++rank)
    counts.push_back(static_cast<std::size_t>(n_rows_of(rank)) * row_bytes_);
  const trace::Span span("wait for queries", trace::Lane::messages);
  const auto only = std::ranges::find(counts, rows.size());
  if (only != counts.end()) {
    const bool is_mine = own.size() == rows.size();
    group_->bcast(is_mine ? own : rows, static_cast<Rank>(only - counts.begin()));
  } else {
    group_->allgatherv(own, counts, rows);
  }
  return rows;
}

void QueryExchange::hand_over_by_messages(std::span<const Partial> mine) {
  const Rank me = group_->rank();
  for (Rank to = 0; to < group_->size(); ++to) {
    if (n_rows_of(to) == 0) continue;
    std::vector<std::size_t> counts;
    for (Rank from = 0; from < group_->size(); ++from)
      counts.push_back(from == to ? 0 : message_bytes(from, to));
    const std::span<std::byte> message = pinned(outgoing_, counts[static_cast<std::size_t>(me)]);
    if (to != me) pack(mine, to, message);
    std::span<std::byte> arriving;
    if (to == me) arriving = pinned(incoming_, bytes_for(me));
    const trace::Span span("wait for partials", trace::Lane::messages);
    group_->gatherv(message, counts, arriving, to);
  }
}

std::span<std::byte> QueryExchange::arrived_from(Rank from) const {
  const Rank me = group_->rank();
  std::size_t at = 0;
  for (Rank rank = 0; rank < from; ++rank)
    if (rank != me) at += message_bytes(rank, me);
  return {incoming_.data() + at, message_bytes(from, me)};
}

// --- on one node: the window

void QueryExchange::open_window(const Communicator& node) {
  const std::size_t room = std::min(NodeMemory::room(node), kMostWindowBytes);
  queries_at_ = 2 * n_parts_.size() * sizeof(SharedCounters::Counter);
  if (room <= queries_at_) return;
  window_ = NodeMemory::create(node, room);
  if (!window_) return;
  counters_ = SharedCounters(reinterpret_cast<SharedCounters::Counter*>(window_->bytes().data()));
  pinned_ = backend_->pin(window_->bytes());
}

void QueryExchange::lay_out_window() {
  const std::int64_t n_parts = std::accumulate(n_parts_.begin(), n_parts_.end(), std::int64_t{0});
  const std::size_t bytes_a_row = row_bytes_ + static_cast<std::size_t>(n_parts) * part_bytes(1);
  const std::size_t n_fit = (window_->bytes().size() - queries_at_) / bytes_a_row;
  window_rows_ = std::min(max_rows_, static_cast<std::int64_t>(n_fit));
  messages_at_.clear();
  std::size_t at = queries_at_ + static_cast<std::size_t>(window_rows_) * row_bytes_;
  for (const std::int64_t n : n_parts_) {
    messages_at_.push_back(at);
    at += static_cast<std::size_t>(n) * part_bytes(window_rows_);
  }
}

std::span<std::byte> QueryExchange::share_in_window(Rows mine, bool takes_rows) {
  ++n_layers_;
  const std::span<std::byte> rows =
      window_->bytes().subspan(queries_at_, static_cast<std::size_t>(n_rows()) * row_bytes_);
  if (mine.n_rows > 0) {
    const std::size_t at = static_cast<std::size_t>(first_row_of(group_->rank())) * row_bytes_;
    backend_->download(mine.data,
                       rows.subspan(at, static_cast<std::size_t>(mine.n_rows) * row_bytes_));
    announce(Stage::queries);
  }
  for (Rank rank = 0; takes_rows && rank < group_->size(); ++rank)
    if (n_rows_of(rank) > 0) await(rank, Stage::queries);
  return rows;
}

// Within a step a rank writes here again only when all ranks with rows have announced their next
// ones, and so have copied these: they download in the order of their operations.
void QueryExchange::hand_over_in_window(std::span<const Partial> mine) {
  for (Rank to = 0; to < group_->size(); ++to)
    if (to != group_->rank() && n_rows_of(to) > 0)
      pack(mine, to, message_in_window(group_->rank(), to));
  announce(Stage::parts);
}

// One rank's messages to all lie side by side.
std::span<std::byte> QueryExchange::message_in_window(Rank from, Rank to) const {
  const std::size_t before =
      static_cast<std::size_t>(n_parts_of(from)) * part_bytes(first_row_of(to));
  return window_->bytes().subspan(messages_at_[static_cast<std::size_t>(from)] + before,
                                  message_bytes(from, to));
}

void QueryExchange::announce(Stage stage) {
  counters_.set(counter_of(group_->rank(), stage), n_layers_);
}

void QueryExchange::await(Rank rank, Stage stage) const {
  const trace::Span span(stage == Stage::queries ? "wait for queries" : "wait for partials",
                         trace::Lane::messages);
  counters_.await(counter_of(rank, stage), n_layers_);
}

}  // namespace starattn
