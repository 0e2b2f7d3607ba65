// SPDX-License-Identifier: Apache-2.0
// Layers that pass between host and device: KvDoubleBuffer on the way out, KvPrefetch on the way
// in. The backend's copies complete late, so a layer used too early, or a buffer used again too
// early, shows.
#include <gtest/gtest.h>

#include <algorithm>

#include "../backend/late_backend.h"
#include "star/kv_double_buffer.h"
#include "star/kv_prefetch.h"

namespace starattn {
namespace {

constexpr std::int64_t kLayers = 5;
constexpr std::int64_t kTokens = 7;
constexpr std::int64_t kWidth = 16;

std::byte value_of(std::int64_t layer, int part, std::int64_t block = 0) {
  return static_cast<std::byte>(1 + 40 * block + 2 * layer + part);
}

class KvStreamsTest : public ::testing::TestWithParam<KvMemory> {
 protected:
  KvCache cache_of(KvMemory where, std::int64_t n_tokens = kTokens) {
    return {backend, kLayers, n_tokens, KvLayout{Dtype::f32, 1, kWidth}, where};
  }
  static bool all(const std::byte* data, std::size_t n, std::byte value) {
    return std::all_of(data, data + n, [&](std::byte byte) { return byte == value; });
  }
  // The layer of a cache on the host or the device, as a reader finds it after finish().
  static void expect_layer(const KvCache& cache, std::int64_t layer, std::int64_t block = 0) {
    EXPECT_TRUE(all(cache.k(layer), cache.part_bytes(), value_of(layer, 0, block)))
        << "k of layer " << layer;
    EXPECT_TRUE(all(cache.v(layer), cache.part_bytes(), value_of(layer, 1, block)))
        << "v of layer " << layer;
  }
  static void fill(const KvCache& cache, std::int64_t block) {
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      std::memset(cache.k(layer), static_cast<int>(value_of(layer, 0, block)), cache.part_bytes());
      std::memset(cache.v(layer), static_cast<int>(value_of(layer, 1, block)), cache.part_bytes());
    }
  }

  testing::LateBackend backend{make_cpu_backend(1)};
};

TEST_P(KvStreamsTest, WhatIsComputedLayerByLayerIsInTheCache) {
  const KvCache cache = cache_of(GetParam());
  {
    KvDoubleBuffer buffer(backend, cache);
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      const RawRows k = buffer.k_rows(layer, 0, kTokens);
      const RawRows v = buffer.v_rows(layer, 0, kTokens);
      std::memset(k.data, static_cast<int>(value_of(layer, 0)), cache.part_bytes());
      std::memset(v.data, static_cast<int>(value_of(layer, 1)), cache.part_bytes());
      const KvSegment segment = buffer.segment(layer, kTokens);
      EXPECT_EQ(segment.k, k.data);
      EXPECT_EQ(segment.n_tokens, kTokens);
      buffer.store(layer);
    }
    buffer.finish();
    for (std::int64_t layer = 0; layer < kLayers; ++layer) expect_layer(cache, layer);
  }
}

TEST_P(KvStreamsTest, ALayerThatWasComputedBeforeIsFetched) {
  const KvCache cache = cache_of(GetParam());
  fill(cache, 0);
  KvDoubleBuffer buffer(backend, cache);
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    buffer.fetch(layer);
    const KvSegment segment = buffer.segment(layer, kTokens);
    EXPECT_TRUE(all(segment.k, cache.part_bytes(), value_of(layer, 0)));
    EXPECT_TRUE(all(segment.v, cache.part_bytes(), value_of(layer, 1)));
  }
}

// Three blocks, of which the middle one lives elsewhere than the others, round and round.
TEST_P(KvStreamsTest, BlocksComeLayerByLayerAgainAndAgain) {
  const KvMemory other = GetParam() == KvMemory::host ? KvMemory::device : KvMemory::host;
  std::vector<KvCache> caches;
  caches.push_back(cache_of(GetParam()));
  caches.push_back(cache_of(other, 3));
  caches.push_back(cache_of(GetParam(), 4));
  std::vector<KvPrefetch::Source> sources;
  for (std::size_t i = 0; i < caches.size(); ++i) {
    fill(caches[i], static_cast<std::int64_t>(i));
    sources.push_back({&caches[i], caches[i].n_tokens()});
  }
  sources[0].n_tokens = 2;  // an anchor: the first tokens of a block
  KvPrefetch prefetch(backend, sources, kLayers);
  for (int round = 0; round < 3; ++round) {
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      const std::span<const KvSegment> segments = prefetch.layer(layer);
      ASSERT_EQ(segments.size(), 3u);
      for (std::size_t i = 0; i < segments.size(); ++i) {
        const std::size_t n = static_cast<std::size_t>(sources[i].n_tokens) * caches[i].row_bytes();
        EXPECT_EQ(segments[i].n_tokens, sources[i].n_tokens);
        EXPECT_TRUE(all(segments[i].k, n, value_of(layer, 0, static_cast<std::int64_t>(i))))
            << "k of block " << i << ", layer " << layer;
        EXPECT_TRUE(all(segments[i].v, n, value_of(layer, 1, static_cast<std::int64_t>(i))))
            << "v of block " << i << ", layer " << layer;
      }
    }
  }
}

TEST_P(KvStreamsTest, ASingleLayerIsNotFetchedAhead) {
  const KvCache cache(backend, 1, kTokens, KvLayout{Dtype::f32, 1, kWidth}, GetParam());
  std::memset(cache.k(0), 3, cache.part_bytes());
  std::memset(cache.v(0), 4, cache.part_bytes());
  KvPrefetch prefetch(backend, {{&cache, kTokens}}, 1);
  for (int round = 0; round < 3; ++round) {
    const KvSegment segment = prefetch.layer(0)[0];
    EXPECT_TRUE(all(segment.k, cache.part_bytes(), std::byte{3}));
    EXPECT_TRUE(all(segment.v, cache.part_bytes(), std::byte{4}));
  }
}

INSTANTIATE_TEST_SUITE_P(Memory, KvStreamsTest, ::testing::Values(KvMemory::device, KvMemory::host),
                         [](const auto& memory) {
                           return memory.param == KvMemory::host ? "host" : "device";
                         });

}  // namespace
}  // namespace starattn
