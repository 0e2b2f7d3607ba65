// SPDX-License-Identifier: Apache-2.0
#include "mpi/clock_offset.h"

#include <limits>
#include <span>

namespace starattn {
namespace {

constexpr int kTag = 131;
constexpr int kRounds = 20;

void send(const Communicator& comm, double value, Rank to) {
  comm.send(std::as_bytes(std::span(&value, 1)), to, kTag);
}
double receive(const Communicator& comm, Rank from) {
  double value = 0;
  comm.recv(std::as_writable_bytes(std::span(&value, 1)), from, kTag);
  return value;
}

}  // namespace

double clock_offset(const Communicator& comm, double (*now)()) {
  comm.barrier();
  if (comm.is_root()) {
    for (Rank rank = 1; rank < comm.size(); ++rank) {
      for (int round = 0; round < kRounds; ++round) {
        receive(comm, rank);
        send(comm, now(), rank);
      }
    }
    return 0;
  }
  double offset = 0;
  double fastest = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    const double begin = now();
    send(comm, begin, 0);
    const double there = receive(comm, 0);
    const double end = now();
    if (end - begin >= fastest) continue;
    fastest = end - begin;
    offset = there - (begin + end) / 2;
  }
  return offset;
}

}  // namespace starattn
