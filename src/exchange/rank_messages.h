// SPDX-License-Identifier: Apache-2.0
// Small messages between two ranks that the host of the one or the other has to read, of sizes that
// both know: what is sent leaves the device behind the operations called so far, what arrives waits
// in pinned host memory. Everything moves inside poll(). Rows go through a Channel.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "mpi/communicator.h"

namespace starattn {

class RankMessages {
 public:
  // The group and the backend must outlive the messages. `also`: called by every poll().
  RankMessages(const Communicator& group, Backend& backend, std::function<void()> also);

  // Between two ranks messages of one tag keep their order. What lies in several places travels as
  // one message.
  void send(std::span<const std::span<const std::byte>> on_device, Rank to, int tag);
  void send_from_host(std::span<const std::byte> bytes, Rank to, int tag);

  // Begins to receive; then the bytes, in pinned host memory, good until forget().
  void expect(Rank from, int tag, std::size_t n_bytes);
  std::span<const std::byte> receive(Rank from, int tag);

  void poll();
  // All that was sent has left, all that was received is forgotten, and its memory is used again.
  void forget();

 private:
  struct Outgoing {
    Rank to = 0;
    int tag = 0;
    Buffer staging;
    std::size_t n_bytes = 0;
    bool is_off = false;
    Requests requests;
  };
  struct Incoming {
    Buffer staging;
    std::size_t n_bytes = 0;
    Requests requests;
  };
  Buffer take_staging(std::size_t n_bytes);

  const Communicator* group_;
  Backend* backend_;
  std::function<void()> also_;
  std::deque<Outgoing> outgoing_;
  std::map<std::pair<Rank, int>, Incoming> incoming_;
  std::vector<Buffer> spare_;  // pinning memory is slow
};

}  // namespace starattn
