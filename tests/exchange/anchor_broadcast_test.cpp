// SPDX-License-Identifier: Apache-2.0
// The anchor arrives byte for byte, whichever ranks share a node, and with more of it than a node's
// memory holds.
#include "exchange/anchor_broadcast.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "../star/tiny_model.h"
#include "exchange/group_channel.h"
#include "node_layouts.h"
#include "star/kv.h"

namespace starattn {
namespace {

constexpr std::int64_t kLayers = 4;
constexpr std::int64_t kWidth = 64;

// The 64-bit words of one layer's keys or values.
std::uint64_t word(std::int64_t layer, int part, std::size_t i) {
  return (static_cast<std::uint64_t>(layer) << 40 | static_cast<std::uint64_t>(part) << 36 | i) *
         0x9e3779b97f4a7c15;
}

void fill(Backend& backend, const KvCache& cache, std::int64_t layer) {
  std::vector<std::uint64_t> words(cache.part_bytes() / sizeof(std::uint64_t));
  for (int part = 0; part < 2; ++part) {
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = word(layer, part, i);
    backend.upload(std::as_bytes(std::span(words)), part == 0 ? cache.k(layer) : cache.v(layer));
  }
}

bool is_filled(Backend& backend, const KvSegment& segment, std::size_t n_bytes,
               std::int64_t layer) {
  std::vector<std::uint64_t> words(n_bytes / sizeof(std::uint64_t));
  for (int part = 0; part < 2; ++part) {
    backend.download(part == 0 ? segment.k : segment.v, std::as_writable_bytes(std::span(words)));
    for (std::size_t i = 0; i < words.size(); ++i)
      if (words[i] != word(layer, part, i)) return false;
  }
  return true;
}

class AnchorBroadcastTest : public ::testing::TestWithParam<NodeLayout> {
 protected:
  // Rank `root` computes block 0; `slow` dawdles between its layers.
  void broadcast(GroupChannel& channel, std::int64_t anchor_size,
                 const std::vector<bool>& is_member, Rank root, Rank slow) {
    const KvLayout layout{backend->kv_dtype(), 1, kWidth};
    AnchorBroadcast broadcast(channel, world.rank(), channel.nodes(), is_member, root, *backend,
                              kLayers, anchor_size, layout);
    const bool is_root = world.rank() == root;
    // The block is longer than its anchor.
    const KvCache block_0(*backend, kLayers, is_root ? anchor_size + 3 : 1, layout);
    const std::size_t n_bytes =
        static_cast<std::size_t>(anchor_size * kWidth) * size_of(backend->kv_dtype());
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      if (!is_member[static_cast<std::size_t>(world.rank())]) break;
      if (world.rank() == slow) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (is_root) {
        fill(*backend, block_0, layer);
        broadcast.send({block_0.k(layer)}, {block_0.v(layer)});
      }
      if (is_root) continue;
      const KvSegment anchor = broadcast.wait(layer);
      EXPECT_EQ(anchor.n_tokens, anchor_size);
      EXPECT_TRUE(is_filled(*backend, anchor, n_bytes, layer))
          << "rank " << world.rank() << ", layer " << layer;
    }
    broadcast.finish();
  }

  Communicator world = Communicator::world();
  std::unique_ptr<Backend> backend = testing::test_backend(1);
};

TEST_P(AnchorBroadcastTest, BringsEveryByteToEveryMember) {
  GroupChannel channel(world, world.split(GetParam().node_of(world.rank())), *backend);
  std::vector<bool> all(static_cast<std::size_t>(world.size()), true);
  const Rank last = world.size() - 1;
  // Twelve MiB and a bit a part: pieces of unequal size, more than once around the ring.
  const auto large =
      static_cast<std::int64_t>((std::size_t{12} << 20) / (kWidth * size_of(backend->kv_dtype()))) +
      5;
  broadcast(channel, 1, all, 0, 0);
  broadcast(channel, large, all, last, 0);
  broadcast(channel, large, all, 0, last);
  if (world.size() > 2) {
    std::vector<bool> some = all;
    some[1] = false;  // has no block to compute
    broadcast(channel, large, some, 0, 2);
  }
}

STARATTN_IN_EVERY_NODE_LAYOUT(AnchorBroadcastTest);

TEST(NodeMemory, IsSeenByAllRanksOfTheNode) {
  const Communicator world = Communicator::world();
  std::optional<NodeMemory> memory = NodeMemory::create(world, 1000);
  ASSERT_TRUE(memory);
  ASSERT_EQ(memory->bytes().size(), 1000u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory->bytes().data()) % 4096, 0u);
  if (world.is_root()) std::memset(memory->bytes().data(), 7, 1000);
  world.barrier();
  EXPECT_EQ(memory->bytes()[999], std::byte{7});
}

}  // namespace
}  // namespace starattn
