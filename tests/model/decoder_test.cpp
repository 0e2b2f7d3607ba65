// SPDX-License-Identifier: Apache-2.0
// The angles that a layer gets from a table of all of a model's RoPEs.
#include "model/decoder.h"

#include <gtest/gtest.h>

#include <numeric>

namespace starattn {
namespace {

ModelConfig small_decoder() {
  ModelConfig config;
  config.vocab_size = 8;
  config.hidden_size = config.intermediate_size = 32;
  config.n_layers = 2;
  config.n_heads = config.n_kv_heads = 2;
  config.head_dim = 16;
  return config;
}

// Each layer has the angles that it would have if all layers had its RoPE.
TEST(RopeTables, HaveTheAnglesOfEachLayersRope) {
  RopeConfig yarn, plain, none;
  yarn.kind = RopeKind::yarn;
  yarn.factor = 4;
  yarn.original_positions = 8;
  yarn.query_beta = 0.5;
  none.kind = RopeKind::none;
  const std::vector<std::int64_t> scattered = {3, 4, 5, 40, 7, 41, 42};
  for (const RopeConfig& first : {yarn, plain}) {
    for (const RopeConfig& second : {plain, none, yarn}) {
      ModelConfig both = small_decoder(), one = both, other = both;
      both.multipliers.attention = 0.4;
      both.layers = {{}, {.has_other_rope = true}};
      both.rope = first;
      both.other_rope = second;
      one = other = both;
      one.layers = other.layers = {};
      other.rope = second;
      one.other_rope = other.other_rope = {};
      const ModelWeights weights = ModelWeights::random(both, Dtype::f32, 1);
      const auto backend = make_cpu_backend(1);
      const Decoder decoder(both, weights, *backend, 16);
      for (std::size_t layer = 0; layer < 2; ++layer) {
        const ModelConfig& alone = layer == 0 ? one : other;
        const Decoder decoder_alone(alone, weights, *backend, 16);
        const auto expect_same = [&](const RopeTable& table, const RopeTable& of_one,
                                     std::int64_t first_row) {
          const Angles a = table.angles(both.layers[layer], first_row);
          const Angles b = of_one.angles({}, first_row);
          const std::int64_t n = (table.n_rows - first_row) * table.half;
          for (std::int64_t i = 0; i < n; ++i) {
            ASSERT_EQ(a.cos[i], b.cos[i]);
            ASSERT_EQ(a.sin[i], b.sin[i]);
            ASSERT_EQ(a.q_cos[i], b.q_cos[i]);
            ASSERT_EQ(a.q_sin[i], b.q_sin[i]);
          }
        };
        for (const std::int64_t first_row : {0, 5}) {
          expect_same(decoder.rope_table(100, 9), decoder_alone.rope_table(100, 9), first_row);
          expect_same(decoder.rope_table(scattered), decoder_alone.rope_table(scattered),
                      first_row);
        }
      }
    }
  }
}

TEST(RopeTables, HaveTheSameBitsForPositionsInAnyOrder) {
  const ModelConfig config = small_decoder();
  const ModelWeights weights = ModelWeights::random(config, Dtype::f32, 1);
  const auto backend = make_cpu_backend(1);
  const Decoder decoder(config, weights, *backend, 200);
  const RopeTable forwards = decoder.rope_table(1000, 150);
  std::vector<std::int64_t> positions(150);
  std::iota(positions.rbegin(), positions.rend(), 1000);
  const RopeTable backwards = decoder.rope_table(positions);
  for (std::int64_t row = 0; row < 150; ++row) {
    const Angles a = forwards.angles({}, row), b = backwards.angles({}, 149 - row);
    for (std::int64_t i = 0; i < forwards.half; ++i) {
      ASSERT_EQ(a.cos[i], b.cos[i]);
      ASSERT_EQ(a.sin[i], b.sin[i]);
    }
  }
}

}  // namespace
}  // namespace starattn
