// SPDX-License-Identifier: Apache-2.0
// Segments arrive byte for byte at every rank that needs them, whichever ranks share a node, with
// more of them than a node's memory holds.
#include "exchange/segment_exchange.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <optional>
#include <thread>

#include "../star/tiny_model.h"
#include "exchange/group_channel.h"
#include "node_layouts.h"
#include "star/kv.h"

namespace starattn {
namespace {

constexpr std::int64_t kLayers = 3;
constexpr std::int64_t kWidth = 64;

std::uint64_t word(std::int64_t segment, std::int64_t layer, int part, std::size_t i) {
  return (static_cast<std::uint64_t>(segment) << 48 | static_cast<std::uint64_t>(layer) << 40 |
          static_cast<std::uint64_t>(part) << 36 | i) *
         0x9e3779b97f4a7c15;
}

class SegmentExchangeTest : public ::testing::TestWithParam<NodeLayout> {
 protected:
  void fill(const KvCache& cache, std::int64_t segment, std::int64_t layer) {
    std::vector<std::uint64_t> words(cache.part_bytes() / sizeof(std::uint64_t));
    for (int part = 0; part < 2; ++part) {
      for (std::size_t i = 0; i < words.size(); ++i) words[i] = word(segment, layer, part, i);
      backend->upload(std::as_bytes(std::span(words)), part == 0 ? cache.k(layer) : cache.v(layer));
    }
  }
  bool is_filled(const KvSegment& kv, std::int64_t segment, std::int64_t layer) {
    const std::size_t n_bytes =
        static_cast<std::size_t>(kv.n_tokens * kWidth) * size_of(backend->kv_dtype());
    std::vector<std::uint64_t> words(n_bytes / sizeof(std::uint64_t));
    for (int part = 0; part < 2; ++part) {
      backend->download(part == 0 ? kv.k : kv.v, std::as_writable_bytes(std::span(words)));
      for (std::size_t i = 0; i < words.size(); ++i)
        if (words[i] != word(segment, layer, part, i)) return false;
    }
    return true;
  }

  // Every layer of a document, as Encoder::encode_reach goes through it; `slow` dawdles. Of segment
  // j, of n_tokens[j], needs(i, j) tokens are needed where segment i is.
  template <typename NeedsOf>
  void exchange(const std::vector<std::int64_t>& n_tokens, const NeedsOf& n_needed, Rank slow,
                KvMemory where = KvMemory::device) {
    GroupChannel& channel = this->channel();
    SegmentExchange::Needs needs;
    needs.n_tokens.resize(static_cast<std::size_t>(world.size()),
                          std::vector<std::int64_t>(n_tokens.size(), 0));
    const KvLayout layout{backend->kv_dtype(), 1, kWidth};
    std::map<std::int64_t, KvCache> own;
    for (std::int64_t i = 0; i < std::ssize(n_tokens); ++i) {
      const auto turn = static_cast<Rank>(i % (2 * world.size()));  // zigzag
      const Rank owner = turn < world.size() ? turn : 2 * world.size() - 1 - turn;
      needs.owners.push_back(owner);
      auto& of_owner = needs.n_tokens[static_cast<std::size_t>(owner)];
      for (std::size_t j = 0; j < n_tokens.size(); ++j)
        of_owner[j] = std::max(of_owner[j], n_needed(i, static_cast<std::int64_t>(j)));
      if (owner == world.rank())
        own.emplace(
            i, KvCache(*backend, kLayers, n_tokens[static_cast<std::size_t>(i)], layout, where));
    }
    SegmentExchange exchange(channel, world.rank(), *backend, needs, layout, kLayers);
    std::int64_t n_received = 0;
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      if (world.rank() == slow) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      exchange.start_layer();
      for (const auto& [i, cache] : own) {
        fill(cache, i, layer);
        const bool is_on_host = cache.is_on_host();
        exchange.send(i, {cache.k(layer), is_on_host}, {cache.v(layer), is_on_host});
      }
      for (std::int64_t j = 0; j < std::ssize(n_tokens); ++j) {
        const std::int64_t n = exchange.n_needed(world.rank(), j);
        if (own.contains(j) || n == 0) continue;
        const KvSegment segment = exchange.receive(j);
        EXPECT_EQ(segment.n_tokens, n);
        EXPECT_TRUE(is_filled(segment, j, layer))
            << "rank " << world.rank() << ", segment " << j << ", layer " << layer;
        ++n_received;
      }
    }
    exchange.finish();
    EXPECT_TRUE(channel.is_idle());
    std::int64_t n_all = 0;
    for (const std::int64_t n : world.allgather(n_received)) n_all += n;
    EXPECT_EQ(n_all > 0, world.size() > 1);
  }

  GroupChannel& channel() {
    if (!channel_) channel_.emplace(world, world.split(GetParam().node_of(world.rank())), *backend);
    return *channel_;
  }

  Communicator world = Communicator::world();
  std::unique_ptr<Backend> backend = testing::test_backend(1);
  std::optional<GroupChannel> channel_;
};

TEST_P(SegmentExchangeTest, BringsEveryByteToWhoNeedsIt) {
  const Rank last = world.size() - 1;
  const auto n = static_cast<std::size_t>(world.size());
  // Five MiB and a bit of keys: pieces of unequal size, and two segments do not fit into a ring.
  const auto large =
      static_cast<std::int64_t>((std::size_t{5} << 20) / (kWidth * size_of(backend->kv_dtype()))) +
      8;
  const std::vector<std::int64_t> small(2 * n, 8);
  std::vector<std::int64_t> ragged(2 * n, large);
  ragged.back() = large / 2;
  const auto all_before = [](const std::vector<std::int64_t>& n_tokens) {
    return [&](std::int64_t i, std::int64_t j) {
      return j < i ? n_tokens[static_cast<std::size_t>(j)] : 0;
    };
  };
  exchange(small, all_before(small), 0);
  exchange(ragged, all_before(ragged), last);
  exchange(ragged, all_before(ragged), 0, KvMemory::host);
  // The segment before, and the first part of segment 0; some need nothing.
  const std::vector<std::int64_t> even(3 * n, large);
  const auto before = [&](std::int64_t i, std::int64_t j) {
    if (j + 1 == i) return large;
    return j == 0 && i > 0 ? large * 7 / 8 : 0;
  };
  exchange(even, before, last);
  exchange(
      even, [&](std::int64_t i, std::int64_t j) { return i == 1 || i > 3 ? before(i, j) : 0; }, 0);
}

STARATTN_IN_EVERY_NODE_LAYOUT(SegmentExchangeTest);

}  // namespace
}  // namespace starattn
