// SPDX-License-Identifier: Apache-2.0
// Messages of all sizes reach their readers whole and in order, many of them in flight, whichever
// ranks share a node: each as the operations before send() left it, into memory that operations
// before receive() had finished with.
#include "exchange/channel.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "exchange/group_channel.h"
#include "late_operations.h"
#include "node_layouts.h"

namespace starattn {
namespace {

class ChannelTest : public ::testing::TestWithParam<NodeLayout> {
 protected:
  static std::vector<std::byte> text(Rank from, std::uint64_t message, std::size_t n_bytes) {
    std::vector<std::byte> bytes(n_bytes);
    for (std::size_t i = 0; i < n_bytes; ++i)
      bytes[i] = static_cast<std::byte>(
          (i * 2654435761U + message * 97 + static_cast<std::uint64_t>(from) * 31) >> 11);
    return bytes;
  }
  std::vector<std::byte> on_host(const Buffer& buffer, std::size_t n_bytes) {
    std::vector<std::byte> bytes(n_bytes);
    std::memcpy(bytes.data(), buffer.data(), n_bytes);
    return bytes;
  }

  Communicator world = Communicator::world();
  testing::LateOperations backend;
  GroupChannel channel{world, world.split(GetParam().node_of(world.rank())), backend};
};

// Everybody to everybody, as wide as a rank's rows that go out in a layer.
TEST_P(ChannelTest, ManyMessagesInFlightArriveInOrder) {
  constexpr std::size_t kSizes[] = {1, 0, 4096, 777, Channel::kPieceBytes + 5, 65536, 64};
  constexpr int kRounds = 6;
  const Rank me = world.rank();
  std::vector<Buffer> sources, targets;
  std::vector<Channel::Arrival> arrivals;
  std::vector<std::vector<std::byte>> expected;
  std::uint64_t n_sent = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (Rank other = 0; other < world.size(); ++other) {
      if (other == me) continue;
      // What two ranks say to each other depends on both.
      const auto number = static_cast<std::uint64_t>(round * 100 + me * 10 + other);
      const std::size_t n_bytes = kSizes[number % std::size(kSizes)];
      sources.push_back(backend.allocate(n_bytes));
      backend.upload_later(text(me, number, n_bytes), sources.back().data());
      const Channel::Reader readers[] = {{other, n_bytes}};
      EXPECT_EQ(channel.send({sources.back().data()}, readers), ++n_sent);

      const auto theirs = static_cast<std::uint64_t>(round * 100 + other * 10 + me);
      const std::size_t n_theirs = kSizes[theirs % std::size(kSizes)];
      targets.push_back(backend.allocate(n_theirs));
      std::byte* const target = targets.back().data();
      std::memset(target, 0x55, n_theirs);
      backend.later([=] {  // an operation that still reads there
        EXPECT_EQ(std::count(target, target + n_theirs, std::byte{0x55}), n_theirs);
      });
      arrivals.push_back(channel.receive(other, {target, n_theirs}));
      expected.push_back(text(other, theirs, n_theirs));
    }
  }
  for (std::size_t i = arrivals.size(); i-- > 0;) {  // waiting in another order is no matter
    channel.wait(arrivals[i], "wait");
    EXPECT_EQ(on_host(targets[i], expected[i].size()), expected[i]) << i;
  }
  channel.wait_until_idle("wait");
  EXPECT_TRUE(channel.has_left(n_sent));
}

// One writer, each reader another prefix, more than a ring in all; a source is written again as
// soon as its message has left.
TEST_P(ChannelTest, ReadersTakePrefixesOfWhatOneRankSends) {
  constexpr int kMessages = 12;
  const std::size_t n_bytes = 2 * Channel::kPieceBytes + 100;
  const auto prefix = [&](Rank rank, int message) {
    return (rank + message) % 3 == 0 ? 0 : n_bytes / static_cast<std::size_t>(rank + 1);
  };
  if (world.rank() == 0) {
    const Buffer source = backend.allocate(n_bytes);
    for (int message = 0; message < kMessages; ++message) {
      std::vector<Channel::Reader> readers;
      for (Rank rank = 1; rank < world.size(); ++rank)
        readers.push_back({rank, prefix(rank, message)});
      backend.upload_later(text(0, static_cast<std::uint64_t>(message), n_bytes), source.data());
      const std::uint64_t number = channel.send({source.data()}, readers);
      while (!channel.has_left(number)) channel.poll();
    }
  } else {
    for (int message = 0; message < kMessages; ++message) {
      const std::size_t n = prefix(world.rank(), message);
      if (n == 0) continue;
      const Buffer target = backend.allocate(n);
      channel.wait(channel.receive(0, {target.data(), n}), "wait");
      EXPECT_EQ(on_host(target, n), text(0, static_cast<std::uint64_t>(message), n)) << message;
    }
  }
  channel.wait_until_idle("wait");
}

// K and V that live in host memory may still be on their way there.
TEST_P(ChannelTest, AHostSourceIsSentOnceItsCopiesAreThere) {
  const std::size_t n_bytes = 300000;
  const Buffer device = backend.allocate(n_bytes), host = backend.allocate_pinned(n_bytes);
  const Rank next = (world.rank() + 1) % world.size();
  const Rank before = (world.rank() + world.size() - 1) % world.size();
  if (world.size() == 1) return;
  backend.upload(text(world.rank(), 1, n_bytes), device.data());
  backend.copy_now(CopyDirection::to_host, {device.data(), n_bytes}, host.data());
  const Channel::Reader readers[] = {{next, n_bytes}};
  channel.send({host.data(), /*is_on_host=*/true}, readers);
  const Buffer target = backend.allocate(n_bytes);
  channel.wait(channel.receive(before, {target.data(), n_bytes}), "wait");
  EXPECT_EQ(on_host(target, n_bytes), text(before, 1, n_bytes));
  channel.wait_until_idle("wait");
}

STARATTN_IN_EVERY_NODE_LAYOUT(ChannelTest);

}  // namespace
}  // namespace starattn
