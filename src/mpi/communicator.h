// SPDX-License-Identifier: Apache-2.0
// A group of ranks and what they say to each other, in bytes and spans. Every message stays under
// 2^31 bytes (larger ones travel in pieces); a failing MPI call throws Error(unfit).
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/rank.h"

namespace starattn {

// Operations under way. Completed by test() or wait(); the destructor waits for nothing, so keep
// the object and its memory until done() is true.
class Requests {
 public:
  void add(MPI_Request request) { requests_.push_back(request); }
  bool test();  // true when all have finished; also lets MPI make progress
  void wait();
  bool empty() const { return requests_.empty(); }

 private:
  std::vector<MPI_Request> requests_;
};

class Communicator {
 public:
  static Communicator world();  // a duplicate of MPI_COMM_WORLD
  ~Communicator();
  Communicator(Communicator&& other) noexcept
      : comm_(other.comm_),
        rank_(other.rank_),
        size_(other.size_),
        keeps_to_messages_(other.keeps_to_messages_) {
    other.comm_ = MPI_COMM_NULL;
  }
  Communicator& operator=(Communicator&& other) noexcept;

  Rank rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  bool is_member() const { return comm_ != MPI_COMM_NULL; }

  Communicator split(
      int color) const;  // ranks of one color, in the old order; color < 0: not a member
  // Ranks that share memory: all of a node, or each alone after keep_to_messages().
  Communicator split_by_node() const;
  // From here on this communicator, and those split from it, take no rank's memory for shared.
  void keep_to_messages() { keeps_to_messages_ = true; }

  void barrier() const;
  void bcast(std::span<std::byte> bytes, Rank root) const;
  std::string bcast_text(const std::string& text, Rank root) const;
  // Every rank's bytes, in rank order, on root; counts are known to all. receive: sum of counts.
  void gatherv(std::span<const std::byte> mine, std::span<const std::size_t> counts,
               std::span<std::byte> receive, Rank root) const;
  void allgatherv(std::span<const std::byte> mine, std::span<const std::size_t> counts,
                  std::span<std::byte> receive) const;
  std::vector<std::string> gather_texts(const std::string& mine, Rank root) const;

  void isend(std::span<const std::byte> bytes, Rank to, int tag, Requests& requests) const;
  void irecv(std::span<std::byte> bytes, Rank from, int tag, Requests& requests) const;
  void send(std::span<const std::byte> bytes, Rank to, int tag) const;
  void recv(std::span<std::byte> bytes, Rank from, int tag) const;

  // Messages whose length the receiver does not know, of any length.
  struct Message {
    Rank from = -1;
    std::string bytes;
  };
  void send_message(std::string_view bytes, Rank to, int tag) const;
  bool try_receive(Message& message, int tag) const;  // any source; false when none is there
  Message receive(Rank from, int tag) const;          // blocks

  template <typename T>
  T bcast_value(T value, Rank root) const {
    static_assert(std::is_trivially_copyable_v<T>);
    bcast(std::as_writable_bytes(std::span(&value, 1)), root);
    return value;
  }
  template <typename T>
  std::vector<T> allgather(const T& value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> all(static_cast<std::size_t>(size_));
    const std::vector<std::size_t> counts(all.size(), sizeof(T));
    allgatherv(std::as_bytes(std::span(&value, 1)), counts, std::as_writable_bytes(std::span(all)));
    return all;
  }
  bool any(bool mine) const;  // true on every rank when it is on one

 private:
  explicit Communicator(MPI_Comm comm);
  std::size_t receive_piece(MPI_Message handle, const MPI_Status& status, Message& message) const;
  void receive_rest(Message& message, int tag, std::size_t n_piece_bytes) const;

  MPI_Comm comm_ = MPI_COMM_NULL;
  Rank rank_ = 0;
  int size_ = 1;
  bool keeps_to_messages_ = false;
};

// An error that every rank of the communicator throws at the same place: they can all leave
// cleanly.
class AgreedError : public Error {
 public:
  using Error::Error;
  explicit AgreedError(const Error& error) : Error(error) {}
};

// Runs `work` on every rank; when it throws an Error on any of them, every rank throws the error of
// the lowest such rank as an AgreedError. So a bad file on one rank is one message and a clean exit
// of all.
void collectively(const Communicator& comm, const std::function<void()>& work);

}  // namespace starattn
