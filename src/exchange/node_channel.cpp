// SPDX-License-Identifier: Apache-2.0
#include "exchange/node_channel.h"

#include <algorithm>
#include <cstring>

namespace starattn {
namespace {

using Counter = SharedCounters::Counter;

constexpr std::size_t kLine = sizeof(Counter);
// A ring of this size for two ranks fits a container's /dev/shm, which has 64 MiB.
constexpr std::size_t kMostRingBytes = std::size_t{24} << 20;
constexpr std::size_t kMostBytes = std::size_t{256} << 20;  // of all rings of a node
constexpr std::size_t kLeastRingBytes = std::size_t{64} << 10;
constexpr std::size_t kPiecesOfARing = 4;  // at least, so that copies in and out go on together
constexpr std::uint64_t kMostTaken = kPiecesOfARing / 2;  // of a ring at once, as well

std::size_t whole_lines(std::size_t n_bytes) {
  return (n_bytes + kLine - 1) / kLine * kLine;
}

}  // namespace

NodeChannel::NodeChannel(const Communicator& group, const Communicator& node, Backend& backend)
    : backend_(&backend),
      ranks_(node.allgather(group.rank())),
      me_(static_cast<std::size_t>(node.rank())),
      n_sent_(ranks_.size(), 0),
      writers_(ranks_.size()) {
  if (node.size() == 1) return;
  const std::size_t n = ranks_.size();
  const std::size_t counters_bytes = 2 * n * n * kLine;
  const std::size_t mail_bytes = n * n * kMostPieces * sizeof(Mail);
  const std::size_t room = NodeMemory::room(node);
  if (room < counters_bytes + mail_bytes + n * kLeastRingBytes) return;
  ring_bytes_ =
      std::min({(room - counters_bytes - mail_bytes) / n, kMostRingBytes, kMostBytes / n});
  ring_bytes_ = std::max(ring_bytes_, kLeastRingBytes) / kLine * kLine;
  memory_ = NodeMemory::create(node, n * ring_bytes_ + counters_bytes + mail_bytes);
  if (!memory_) return;
  piece_bytes_ = std::min(ring_bytes_ / kPiecesOfARing / kLine * kLine, kPieceBytes);
  std::byte* const behind_rings = memory_->bytes().data() + n * ring_bytes_;
  counters_ = SharedCounters(reinterpret_cast<Counter*>(behind_rings));
  mail_ = reinterpret_cast<Mail*>(behind_rings + counters_bytes);
  pinned_ = backend.pin(memory_->bytes().first(n * ring_bytes_));
}

std::optional<std::size_t> NodeChannel::place_of(Rank rank) const {
  const auto found = std::ranges::find(ranks_, rank);
  if (!memory_ || found == ranks_.end()) return std::nullopt;
  const auto place = static_cast<std::size_t>(found - ranks_.begin());
  return place == me_ ? std::nullopt : std::optional(place);
}

std::uint64_t NodeChannel::send(Source source, std::span<const Reader> readers) {
  Outgoing message;
  message.source = source;
  for (const Reader& reader : readers) {
    const std::optional<std::size_t> place = place_of(reader.rank);
    STARATTN_CHECK(place);
    if (reader.n_bytes > 0) message.readers.emplace_back(*place, reader.n_bytes);
    message.n_bytes = std::max(message.n_bytes, reader.n_bytes);
  }
  if (source.is_on_host) backend_->order_after_copies(CopyDirection::to_host);
  message.mark = backend_->mark();
  outgoing_.push_back(std::move(message));
  return ++n_messages_;
}

Channel::Arrival NodeChannel::receive(Rank from, std::span<std::byte> to) {
  const std::optional<std::size_t> place = place_of(from);
  STARATTN_CHECK(place);
  Writer& writer = writers_[*place];
  writer.messages.push_back({to.data(), to.size(), backend_->mark()});
  return {from, ++writer.n_asked};
}

bool NodeChannel::has_arrived(Arrival arrival) const {
  const std::optional<std::size_t> place = place_of(arrival.from);
  STARATTN_CHECK(place && arrival.number <= writers_[*place].n_asked);
  return writers_[*place].n_arrived >= arrival.number;
}

bool NodeChannel::is_idle() const {
  if (!outgoing_.empty()) return false;
  for (const Piece& piece : pieces_)
    for (const auto& [place, n_taken] : piece.readers)
      if (counters_.get(taken(pair(me_, place))) < n_taken) return false;
  return std::ranges::all_of(writers_, [](const Writer& w) { return w.messages.empty(); });
}

bool NodeChannel::step() {
  const bool has_filled = fill();
  return take() || has_filled;
}

bool NodeChannel::fill() {
  if (outgoing_.empty()) return false;
  Outgoing& message = outgoing_.front();
  const bool is_copied_by_device = !message.source.is_on_host;
  if (message.n_done < message.n_begun) {
    if (is_copied_by_device && !backend_->copies_done(CopyDirection::to_host)) return false;
    post(message);
    message.n_done = message.n_begun;
  } else if (message.n_begun < message.n_bytes) {
    if (!backend_->is_reached(message.mark)) return false;
    const std::size_t n_bytes = std::min(piece_bytes_, message.n_bytes - message.n_begun);
    const std::optional<std::size_t> at = room_for(n_bytes);
    if (!at) return false;
    std::byte* const to = memory_->bytes().data() + me_ * ring_bytes_ + *at;
    const std::byte* const from = message.source.data + message.n_begun;
    if (is_copied_by_device) {
      backend_->copy_now(CopyDirection::to_host, {from, n_bytes}, to);
    } else {  // the lane to the host may be waiting for later operations
      std::memcpy(to, from, n_bytes);
    }
    pieces_.push_back({*at, {}});
    message.n_begun += n_bytes;
  }
  if (message.n_done == message.n_bytes) {
    outgoing_.pop_front();
    ++n_left_;
  }
  return true;
}

// The piece that has come into the ring last is for those who read that far.
void NodeChannel::post(const Outgoing& message) {
  Piece& piece = pieces_.back();
  for (const auto& [place, n_bytes] : message.readers) {
    if (n_bytes <= message.n_done) continue;
    const std::size_t to = pair(me_, place);
    mail(to, n_sent_[place]) = {piece.at, std::min(n_bytes, message.n_begun) - message.n_done};
    counters_.set(sent(to), ++n_sent_[place]);
    piece.readers.emplace_back(place, n_sent_[place]);
  }
}

void NodeChannel::forget_what_is_taken() {
  const auto is_taken = [&](const Piece& piece) {
    return std::ranges::all_of(piece.readers, [&](const auto& reader) {
      return counters_.get(taken(pair(me_, reader.first))) >= reader.second;
    });
  };
  while (!pieces_.empty() && is_taken(pieces_.front())) pieces_.pop_front();
}

// Where so many bytes may be written in one go.
std::optional<std::size_t> NodeChannel::room_for(std::size_t n_bytes) {
  forget_what_is_taken();
  const std::size_t n = whole_lines(n_bytes);
  if (pieces_.size() == kMostPieces) return std::nullopt;
  if (pieces_.empty()) next_at_ = 0;
  const std::size_t oldest = pieces_.empty() ? ring_bytes_ : pieces_.front().at;
  const bool is_wrapped = !pieces_.empty() && next_at_ <= oldest;
  if (!is_wrapped && ring_bytes_ - next_at_ < n) {
    if (oldest < n) return std::nullopt;
    next_at_ = 0;
  } else if (is_wrapped && oldest - next_at_ < n) {
    return std::nullopt;
  }
  return std::exchange(next_at_, next_at_ + n);
}

bool NodeChannel::take() {
  if (is_taking_) {
    if (!backend_->copies_done(CopyDirection::to_device)) return false;
    is_taking_ = false;
    for (std::size_t place = 0; place < writers_.size(); ++place) {
      Writer& writer = writers_[place];
      if (writer.n_taken == writer.n_begun) continue;
      counters_.set(taken(pair(place, me_)), writer.n_taken = writer.n_begun);
      retire_arrived(writer);
    }
    return true;
  }
  for (std::size_t place = 0; place < writers_.size(); ++place)
    is_taking_ = begin_to_take(place) || is_taking_;
  return is_taking_;
}

// Whatever this rank waits for and finds in a writer's ring.
bool NodeChannel::begin_to_take(std::size_t place) {
  Writer& writer = writers_[place];
  if (writer.messages.empty()) return false;
  retire_arrived(writer);  // empty ones
  const std::uint64_t n_before = writer.n_begun;
  const std::uint64_t n_there =
      std::min(counters_.get(sent(pair(place, me_))), n_before + kMostTaken);
  for (Incoming& message : writer.messages) {
    if (writer.n_begun == n_there || !backend_->is_reached(message.mark)) break;
    for (; message.n_begun < message.n_bytes && writer.n_begun < n_there; ++writer.n_begun) {
      const Mail& piece = mail(pair(place, me_), writer.n_begun);
      STARATTN_CHECK(piece.n_bytes == std::min(piece_bytes_, message.n_bytes - message.n_begun));
      const std::byte* const from = memory_->bytes().data() + place * ring_bytes_ + piece.at;
      backend_->copy_now(CopyDirection::to_device, {from, piece.n_bytes},
                         message.to + message.n_begun);
      message.n_begun += piece.n_bytes;
    }
  }
  return writer.n_begun > n_before;
}

void NodeChannel::retire_arrived(Writer& writer) const {
  while (!writer.messages.empty() &&
         writer.messages.front().n_begun == writer.messages.front().n_bytes) {
    writer.messages.pop_front();
    ++writer.n_arrived;
  }
}

}  // namespace starattn
