// SPDX-License-Identifier: Apache-2.0
// Blocks arrive byte for byte at every rank that needs them, whichever ranks share a node, with
// more of them than a node's stage holds.
#include "exchange/segment_exchange.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "../star/tiny_model.h"

namespace starattn {
namespace {

constexpr std::int64_t kLayers = 4;  // three are exchanged
constexpr std::int64_t kWidth = 64;

std::uint64_t word(BlockId block, std::int64_t layer, int part, std::size_t i) {
  return (static_cast<std::uint64_t>(block) << 48 | static_cast<std::uint64_t>(layer) << 40 |
          static_cast<std::uint64_t>(part) << 36 | i) *
         0x9e3779b97f4a7c15;
}

struct Layout {
  const char* name;
  int (*node_of)(Rank rank);
};

class SegmentExchangeTest : public ::testing::TestWithParam<Layout> {
 protected:
  void fill(const KvCache& cache, BlockId block, std::int64_t layer) {
    std::vector<std::uint64_t> words(cache.part_bytes() / sizeof(std::uint64_t));
    for (int part = 0; part < 2; ++part) {
      for (std::size_t i = 0; i < words.size(); ++i) words[i] = word(block, layer, part, i);
      backend->upload(std::as_bytes(std::span(words)), part == 0 ? cache.k(layer) : cache.v(layer));
    }
  }
  bool is_filled(const KvSegment& segment, BlockId block, std::int64_t layer) {
    const std::size_t n_bytes =
        static_cast<std::size_t>(segment.n_tokens * kWidth) * size_of(backend->kv_dtype());
    std::vector<std::uint64_t> words(n_bytes / sizeof(std::uint64_t));
    for (int part = 0; part < 2; ++part) {
      backend->download(part == 0 ? segment.k : segment.v,
                        std::as_writable_bytes(std::span(words)));
      for (std::size_t i = 0; i < words.size(); ++i)
        if (words[i] != word(block, layer, part, i)) return false;
    }
    return true;
  }

  // Every layer of a document, as Encoder::encode_reach goes through it; `slow` dawdles.
  void exchange(const PlanRequest& request, std::int64_t n_tokens, std::vector<bool> computing,
                Rank slow, KvMemory where = KvMemory::device) {
    const BlockPlan plan = BlockPlan::make(request, n_tokens, world.size());
    computing.resize(static_cast<std::size_t>(plan.n_blocks()), true);
    SegmentExchange exchange(world, world.split(GetParam().node_of(world.rank())), plan, *backend,
                             kWidth, kLayers, computing);
    std::map<BlockId, KvCache> own;
    for (const BlockId i : plan.blocks_of(world.rank()))
      own.emplace(i, KvCache(*backend, kLayers, plan.block(i).n_tokens, kWidth, where));
    std::int64_t n_received = 0;
    for (std::int64_t layer = 0; layer + 1 < kLayers; ++layer) {
      if (world.rank() == slow) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      exchange.start_layer();
      for (const auto& [i, cache] : own) {
        fill(cache, i, layer);
        exchange.send(i, layer, cache);
      }
      for (BlockId j = 0; j < plan.n_blocks(); ++j) {
        const std::int64_t n = exchange.n_needed(world.rank(), j);
        if (own.contains(j) || n == 0) continue;
        const KvSegment segment = exchange.receive(j);
        EXPECT_EQ(segment.n_tokens, n);
        EXPECT_TRUE(is_filled(segment, j, layer))
            << "rank " << world.rank() << ", block " << j << ", layer " << layer;
        ++n_received;
      }
    }
    exchange.finish();
    if (world.size() > 1 && plan.reach() == plan.n_blocks() - 1) {
      std::int64_t n_all = 0;
      for (const std::int64_t n : world.allgather(n_received)) n_all += n;
      EXPECT_GT(n_all, 0);
    }
  }

  Communicator world = Communicator::world();
  std::unique_ptr<Backend> backend = testing::test_backend(1);
};

TEST_P(SegmentExchangeTest, BringsEveryByteToWhoNeedsIt) {
  const Rank last = world.size() - 1;
  // Five MiB and a bit a part: pieces of unequal size, and two blocks do not fit into a channel.
  const auto large =
      static_cast<std::int64_t>((std::size_t{5} << 20) / (kWidth * size_of(backend->kv_dtype()))) +
      8;
  PlanRequest ring;
  ring.attention = Attention::ring;
  exchange(ring, 16 * world.size(), {}, 0);
  exchange(ring, 2 * large * world.size() - large / 2, {}, last);
  exchange(ring, 2 * large * world.size(), {}, 0, KvMemory::host);
  // The block before, and an anchor that is a part of block 0; some blocks were loaded.
  PlanRequest reach;
  reach.block_size = large;
  reach.anchor_size = large * 7 / 8;
  reach.reach = 1;
  exchange(reach, 3 * large * world.size(), {}, last);
  exchange(reach, 3 * large * world.size(), {false, true, false, false}, 0);
}

INSTANTIATE_TEST_SUITE_P(Nodes, SegmentExchangeTest,
                         ::testing::Values(Layout{"one", [](Rank) { return 0; }},
                                           Layout{"two", [](Rank rank) { return rank % 2; }},
                                           Layout{"each_alone", [](Rank rank) { return rank; }}),
                         [](const auto& layout) { return layout.param.name; });

}  // namespace
}  // namespace starattn
