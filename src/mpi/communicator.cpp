// SPDX-License-Identifier: Apache-2.0
#include "mpi/communicator.h"

#include <algorithm>
#include <optional>
#include <source_location>
#include <thread>
#include <utility>

namespace starattn {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{256} << 20;
constexpr std::size_t kMostCounted = std::size_t{1} << 31;
constexpr int kGatherTag = 301;

void check(int status, const std::source_location& at = std::source_location::current()) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail(Exit::unfit, "MPI failed in {} ({}:{}): {}", at.function_name(), at.file_name(), at.line(),
       text);
}

int as_count(std::size_t n_bytes) {
  STARATTN_CHECK(n_bytes < kMostCounted);
  return static_cast<int>(n_bytes);
}

// The bytes in pieces that MPI can count.
template <typename Span, typename Send>
void in_pieces(Span bytes, const Send& send) {
  std::size_t at = 0;
  do {  // an empty message is a message, too
    send(bytes.subspan(at, std::min(kPieceBytes, bytes.size() - at)));
    at += kPieceBytes;
  } while (at < bytes.size());
}

struct Layout {
  std::vector<int> counts;
  std::vector<int> offsets;
};

// None where MPI cannot count the sum.
std::optional<Layout> layout_of(std::span<const std::size_t> counts) {
  Layout layout;
  std::size_t offset = 0;
  for (const std::size_t count : counts) {
    if (count >= kMostCounted - offset) return std::nullopt;
    layout.counts.push_back(as_count(count));
    layout.offsets.push_back(as_count(offset));
    offset += count;
  }
  return layout;
}

}  // namespace

bool Requests::test() {
  if (requests_.empty()) return true;
  int done = 0;
  check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                    MPI_STATUSES_IGNORE));
  if (done) requests_.clear();
  return done != 0;
}

// MPI_Waitall spins. Where ranks share cores that would slow down the very rank that is waited for,
// so after a short while this sleeps between looks.
void Requests::wait() {
  constexpr int kLooksBeforeSleeping = 1000;
  for (int look = 0; !test(); ++look) {
    if (look > kLooksBeforeSleeping) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

Communicator::Communicator(MPI_Comm comm) : comm_(comm) {
  if (comm_ == MPI_COMM_NULL) return;
  check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
  check(MPI_Comm_rank(comm_, &rank_));
  check(MPI_Comm_size(comm_, &size_));
}

Communicator Communicator::world() {
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &comm));
  return Communicator(comm);
}

Communicator::~Communicator() {
  int ended = 0;
  MPI_Finalized(&ended);
  // While an exception is on its way out the other ranks may never reach this collective call.
  if (comm_ != MPI_COMM_NULL && !ended && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  std::swap(comm_, other.comm_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  std::swap(keeps_to_messages_, other.keeps_to_messages_);
  return *this;
}

Communicator Communicator::split(int color) const {
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, rank_, &comm));
  Communicator part(comm);
  part.keeps_to_messages_ = keeps_to_messages_;
  return part;
}

Communicator Communicator::split_by_node() const {
  if (keeps_to_messages_) return split(rank_);
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &comm));
  return Communicator(comm);
}

void Communicator::barrier() const {
  check(MPI_Barrier(comm_));
}

void Communicator::bcast(std::span<std::byte> bytes, Rank root) const {
  in_pieces(bytes, [&](std::span<std::byte> piece) {
    check(MPI_Bcast(piece.data(), as_count(piece.size()), MPI_BYTE, root, comm_));
  });
}

std::string Communicator::bcast_text(const std::string& text, Rank root) const {
  std::string result = rank_ == root ? text : std::string();
  result.resize(bcast_value(result.size(), root));
  bcast(std::as_writable_bytes(std::span(result)), root);
  return result;
}

void Communicator::gatherv(std::span<const std::byte> mine, std::span<const std::size_t> counts,
                           std::span<std::byte> receive, Rank root) const {
  if (const std::optional<Layout> layout = layout_of(counts)) {
    check(MPI_Gatherv(mine.data(), as_count(mine.size()), MPI_BYTE, receive.data(),
                      layout->counts.data(), layout->offsets.data(), MPI_BYTE, root, comm_));
    return;
  }
  if (rank_ != root) return send(mine, root, kGatherTag);
  Requests requests;
  std::size_t at = 0;
  for (Rank from = 0; from < size_; ++from) {
    const std::span<std::byte> place = receive.subspan(at, counts[static_cast<std::size_t>(from)]);
    at += place.size();
    if (from != rank_) irecv(place, from, kGatherTag, requests);
    if (from == rank_) std::ranges::copy(mine, place.begin());
  }
  requests.wait();
}

void Communicator::allgatherv(std::span<const std::byte> mine, std::span<const std::size_t> counts,
                              std::span<std::byte> receive) const {
  if (const std::optional<Layout> layout = layout_of(counts)) {
    check(MPI_Allgatherv(mine.data(), as_count(mine.size()), MPI_BYTE, receive.data(),
                         layout->counts.data(), layout->offsets.data(), MPI_BYTE, comm_));
    return;
  }
  std::size_t at = 0;
  for (Rank from = 0; from < size_; ++from) {
    const std::span<std::byte> place = receive.subspan(at, counts[static_cast<std::size_t>(from)]);
    at += place.size();
    if (from == rank_) std::ranges::copy(mine, place.begin());
    bcast(place, from);
  }
}

bool Communicator::any(bool mine) const {
  return std::ranges::count(allgather(static_cast<char>(mine)), 1) > 0;
}

std::vector<std::string> Communicator::gather_texts(const std::string& mine, Rank root) const {
  const std::vector<std::size_t> counts = allgather(mine.size());
  std::size_t total = 0;
  for (const std::size_t count : counts) total += count;
  std::string all(rank_ == root ? total : 0, '\0');
  gatherv(std::as_bytes(std::span(mine)), counts, std::as_writable_bytes(std::span(all)), root);
  std::vector<std::string> texts;
  if (rank_ != root) return texts;
  std::size_t at = 0;
  for (const std::size_t count : counts) {
    texts.push_back(all.substr(at, count));
    at += count;
  }
  return texts;
}

void Communicator::isend(std::span<const std::byte> bytes, Rank to, int tag,
                         Requests& requests) const {
  in_pieces(bytes, [&](std::span<const std::byte> piece) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(piece.data(), as_count(piece.size()), MPI_BYTE, to, tag, comm_, &request));
    requests.add(request);
  });
}

void Communicator::irecv(std::span<std::byte> bytes, Rank from, int tag, Requests& requests) const {
  in_pieces(bytes, [&](std::span<std::byte> piece) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Irecv(piece.data(), as_count(piece.size()), MPI_BYTE, from, tag, comm_, &request));
    requests.add(request);
  });
}

void Communicator::send(std::span<const std::byte> bytes, Rank to, int tag) const {
  Requests requests;
  isend(bytes, to, tag, requests);
  requests.wait();
}

void Communicator::recv(std::span<std::byte> bytes, Rank from, int tag) const {
  Requests requests;
  irecv(bytes, from, tag, requests);
  requests.wait();
}

// In pieces; a full one is followed by another, be it empty: so the receiver knows the last.
void Communicator::send_message(std::string_view bytes, Rank to, int tag) const {
  const auto all = std::as_bytes(std::span(bytes));
  std::size_t at = 0;
  std::size_t n = 0;
  do {
    n = std::min(kPieceBytes, all.size() - at);
    send(all.subspan(at, n), to, tag);
    at += n;
  } while (n == kPieceBytes);
}

bool Communicator::try_receive(Message& message, int tag) const {
  int waiting = 0;
  MPI_Message handle = MPI_MESSAGE_NULL;
  MPI_Status status{};
  check(MPI_Improbe(MPI_ANY_SOURCE, tag, comm_, &waiting, &handle, &status));
  if (!waiting) return false;
  message = {status.MPI_SOURCE, {}};
  receive_rest(message, tag, receive_piece(handle, status, message));
  return true;
}

Communicator::Message Communicator::receive(Rank from, int tag) const {
  Message message{from, {}};
  receive_rest(message, tag, kPieceBytes);
  return message;
}

std::size_t Communicator::receive_piece(MPI_Message handle, const MPI_Status& status,
                                        Message& message) const {
  int n_bytes = 0;
  check(MPI_Get_count(&status, MPI_BYTE, &n_bytes));
  const std::size_t at = message.bytes.size();
  message.bytes.resize(at + static_cast<std::size_t>(n_bytes));
  check(MPI_Mrecv(message.bytes.data() + at, n_bytes, MPI_BYTE, &handle, MPI_STATUS_IGNORE));
  return static_cast<std::size_t>(n_bytes);
}

// Everything behind a piece of n_piece_bytes.
void Communicator::receive_rest(Message& message, int tag, std::size_t n_piece_bytes) const {
  while (n_piece_bytes == kPieceBytes) {
    MPI_Message handle = MPI_MESSAGE_NULL;
    MPI_Status status{};
    check(MPI_Mprobe(message.from, tag, comm_, &handle, &status));
    n_piece_bytes = receive_piece(handle, status, message);
  }
}

void collectively(const Communicator& comm, const std::function<void()>& work) {
  std::optional<Error> mine;
  try {
    work();
  } catch (const Error& error) {
    mine = error;
  } catch (const std::bad_alloc&) {
    mine = Error(Exit::unfit, "out of memory");
  }
  const std::vector<int> exits = comm.allgather(mine ? static_cast<int>(mine->exit()) : 0);
  const auto first = std::find_if(exits.begin(), exits.end(), [](int code) { return code != 0; });
  if (first == exits.end()) return;
  const Rank speaker = static_cast<Rank>(first - exits.begin());
  throw AgreedError(static_cast<Exit>(*first), comm.bcast_text(mine ? mine->what() : "", speaker));
}

}  // namespace starattn
