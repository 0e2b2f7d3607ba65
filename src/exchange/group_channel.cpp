// SPDX-License-Identifier: Apache-2.0
#include "exchange/group_channel.h"

namespace starattn {

GroupChannel::GroupChannel(const Communicator& group, const Communicator& node, Backend& backend)
    : near_(group, node, backend),
      far_(group, backend),
      nodes_(group.allgather(near_.first_rank())) {}

std::uint64_t GroupChannel::send(Source source, std::span<const Reader> readers) {
  std::vector<Reader> near, far;
  for (const Reader& reader : readers) (near_.reaches(reader.rank) ? near : far).push_back(reader);
  const std::uint64_t number = near_.send(source, near);  // both count every message
  STARATTN_CHECK(far_.send(source, far) == number);
  return number;
}

bool GroupChannel::step() {
  const bool has_moved = near_.step();
  return far_.step() || has_moved;
}

}  // namespace starattn
