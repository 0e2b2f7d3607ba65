// SPDX-License-Identifier: Apache-2.0
#include "exchange/message_channel.h"

#include <algorithm>
#include <bit>

namespace starattn {
namespace {

constexpr int kTag = 101;
constexpr std::size_t kMostSent = 8;    // pieces in staging that are on their way, of this rank
constexpr std::size_t kMostPosted = 2;  // pieces on their way from each rank
constexpr std::size_t kLeastStaging = std::size_t{64} << 10;

}  // namespace

MessageChannel::MessageChannel(const Communicator& group, Backend& backend)
    : group_(group.split(0)),
      backend_(&backend),
      writers_(static_cast<std::size_t>(group.size())) {}

std::uint64_t MessageChannel::send(Source source, std::span<const Reader> readers) {
  Outgoing message;
  message.source = source;
  for (const Reader& reader : readers) {
    STARATTN_CHECK(reaches(reader.rank));
    if (reader.n_bytes > 0) message.readers.push_back(reader);
    message.n_bytes = std::max(message.n_bytes, reader.n_bytes);
  }
  if (source.is_on_host) backend_->order_after_copies(CopyDirection::to_host);
  message.mark = backend_->mark();
  outgoing_.push_back(std::move(message));
  return ++n_messages_;
}

Channel::Arrival MessageChannel::receive(Rank from, std::span<std::byte> to) {
  STARATTN_CHECK(reaches(from));
  Writer& writer = writers_[static_cast<std::size_t>(from)];
  writer.messages.push_back({to.data(), to.size(), backend_->mark()});
  return {from, ++writer.n_asked};
}

bool MessageChannel::has_arrived(Arrival arrival) const {
  const Writer& writer = writers_[static_cast<std::size_t>(arrival.from)];
  STARATTN_CHECK(arrival.number <= writer.n_asked);
  return writer.n_arrived >= arrival.number;
}

bool MessageChannel::is_idle() const {
  return outgoing_.empty() && sent_.empty() &&
         std::ranges::all_of(writers_, [](const Writer& w) { return w.messages.empty(); });
}

bool MessageChannel::step() {
  bool has_moved = retire_sent();
  has_moved = send_next() || has_moved;
  for (Rank from = 0; from < group_.size(); ++from) has_moved = receive_from(from) || has_moved;
  return has_moved;
}

bool MessageChannel::send_next() {
  if (outgoing_.empty()) return false;
  Outgoing& message = outgoing_.front();
  const std::size_t n_bytes = std::min(kPieceBytes, message.n_bytes - message.n_begun);
  const std::byte* const from = message.source.data + message.n_begun;
  if (message.n_sent < message.n_begun) {  // the last piece is being copied
    if (!backend_->copies_done(CopyDirection::to_host)) return false;
    hand_to_mpi(message, sent_.back().staging.data());
  } else if (message.n_begun < message.n_bytes) {
    if (!backend_->is_reached(message.mark)) return false;
    if (!is_sent_from_where_it_is(message.source)) {
      if (sent_.size() >= kMostSent) return false;
      sent_.emplace_back().staging = take_staging(n_bytes);
      backend_->copy_now(CopyDirection::to_host, {from, n_bytes}, sent_.back().staging.data());
      message.n_begun += n_bytes;
      return true;
    }
    sent_.emplace_back();
    message.n_begun += n_bytes;
    hand_to_mpi(message, from);
  } else {  // for nobody
    sent_.emplace_back();
  }
  message.n_sent = message.n_begun;
  if (message.n_sent < message.n_bytes) return true;
  sent_.back().is_last = true;
  outgoing_.pop_front();
  return true;
}

// Bytes [n_sent, n_begun) of the message to those who read that far.
void MessageChannel::hand_to_mpi(const Outgoing& message, const std::byte* piece) {
  for (const Reader& reader : message.readers) {
    if (reader.n_bytes <= message.n_sent) continue;
    const std::size_t n_bytes = std::min(reader.n_bytes, message.n_begun) - message.n_sent;
    group_.isend({piece, n_bytes}, reader.rank, kTag, sent_.back().requests);
  }
}

// Its last piece may still be on its way into staging.
bool MessageChannel::retire_sent() {
  bool has_retired = false;
  const auto is_being_copied = [this] {
    return sent_.size() == 1 && !outgoing_.empty() &&
           outgoing_.front().n_sent < outgoing_.front().n_begun;
  };
  while (!sent_.empty() && !is_being_copied() && sent_.front().requests.test()) {
    if (sent_.front().staging.data()) spare_staging_.push_back(std::move(sent_.front().staging));
    n_left_ += sent_.front().is_last ? 1 : 0;
    sent_.pop_front();
    has_retired = true;
  }
  return has_retired;
}

bool MessageChannel::receive_from(Rank from) {
  Writer& writer = writers_[static_cast<std::size_t>(from)];
  if (writer.messages.empty()) return false;
  retire_arrived(writer);  // empty ones
  bool has_moved = false;
  while (writer.pieces.size() < kMostPosted && post_next(from)) has_moved = true;
  if (writer.pieces.empty()) return has_moved;
  Posted& piece = writer.pieces.front();
  if (!piece.requests.test()) return has_moved;
  if (piece.staging.data() && !piece.is_copying) {
    backend_->copy_now(CopyDirection::to_device, {piece.staging.data(), piece.n_bytes}, piece.to);
    piece.is_copying = true;
    return true;
  }
  if (piece.is_copying && !backend_->copies_done(CopyDirection::to_device)) return has_moved;
  if (piece.staging.data()) spare_staging_.push_back(std::move(piece.staging));
  writer.messages.front().n_arrived += piece.n_bytes;
  writer.pieces.pop_front();
  retire_arrived(writer);
  return true;
}

// The next piece of the first message that has some left.
bool MessageChannel::post_next(Rank from) {
  Writer& writer = writers_[static_cast<std::size_t>(from)];
  const auto next = std::ranges::find_if(writer.messages,
                                         [](const Incoming& m) { return m.n_posted < m.n_bytes; });
  if (next == writer.messages.end() || !backend_->is_reached(next->mark)) return false;
  Posted& piece = writer.pieces.emplace_back();
  piece.to = next->to + next->n_posted;
  piece.n_bytes = std::min(kPieceBytes, next->n_bytes - next->n_posted);
  if (!backend_->is_host_memory()) piece.staging = take_staging(piece.n_bytes);
  std::byte* const there = backend_->is_host_memory() ? piece.to : piece.staging.data();
  group_.irecv({there, piece.n_bytes}, from, kTag, piece.requests);
  next->n_posted += piece.n_bytes;
  return true;
}

void MessageChannel::retire_arrived(Writer& writer) const {
  while (!writer.messages.empty() &&
         writer.messages.front().n_arrived == writer.messages.front().n_bytes) {
    writer.messages.pop_front();
    ++writer.n_arrived;
  }
}

Buffer MessageChannel::take_staging(std::size_t n_bytes) {
  const auto fits = std::ranges::find_if(
      spare_staging_, [&](const Buffer& spare) { return spare.n_bytes() >= n_bytes; });
  if (fits == spare_staging_.end())
    return backend_->allocate_pinned(std::bit_ceil(std::max(n_bytes, kLeastStaging)));
  Buffer staging = std::move(*fits);
  spare_staging_.erase(fits);
  return staging;
}

}  // namespace starattn
