// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>

#include "backend/backend.h"
#include "calibrate/groups.h"
#include "calibrate/inputs.h"
#include "calibrate/layers.h"
#include "calibrate/line_through.h"
#include "calibrate/messages.h"
#include "calibrate/timer.h"

namespace starattn {
namespace {

TEST(LineThrough, GoesThroughBothPoints) {
  const ByteTime line = line_through(100, 3, 300, 4);
  EXPECT_DOUBLE_EQ(line.seconds(100), 3);
  EXPECT_DOUBLE_EQ(line.seconds(300), 4);
}

TEST(LineThrough, NeitherStartsBeforeZeroNorFalls) {
  EXPECT_EQ(line_through(100, 1, 200, 5).start_s, 0);
  const ByteTime falling = line_through(100, 5, 200, 1);  // a busy machine
  EXPECT_GT(falling.bytes_per_s, 0);
  EXPECT_GE(falling.seconds(1e6), falling.seconds(1));
}

class CalibrationTest : public testing::Test {
 protected:
  // Once: they are 300 MB of random numbers.
  static CalibrationInputs& inputs() {
    static const std::unique_ptr<Backend> backend = make_cpu_backend(1);
    static CalibrationInputs inputs(*backend);
    return inputs;
  }
  const Communicator world_ = Communicator::world();
  Backend& backend_ = inputs().backend();
};

// So that each call can take another matrix.
TEST_F(CalibrationTest, CallsAreNumberedAndTheSameOnAllRanks) {
  const CalibrationTimer timer(backend_, world_);
  std::int64_t n_calls = 0;
  const double seconds = timer([&](std::int64_t i) { EXPECT_EQ(i, n_calls++); });
  EXPECT_GE(n_calls, 2 + static_cast<std::int64_t>(kBundles));
  EXPECT_TRUE(std::isfinite(seconds));
  EXPECT_GE(seconds, 0);
  for (const double other : world_.allgather(seconds)) EXPECT_EQ(other, seconds);
}

TEST_F(CalibrationTest, MatricesTakeTurnsAndRowsRepeat) {
  const WeightView first = inputs().weight(kWidest / 2, kWidest);
  const WeightView second = inputs().weight(kWidest / 2, kWidest, 1);
  EXPECT_EQ(second.data - first.data, kWidest / 2 * kWidest * 2);
  EXPECT_EQ(inputs().weight(kWidest / 2, kWidest, 2).data, first.data);
  constexpr std::int64_t kRow = 8 * sizeof(float);
  const RowBuffer rows = inputs().rows(1026, 8);
  EXPECT_EQ(std::memcmp(rows.rows(0, 2).data, rows.rows(1024, 2).data, 2 * kRow), 0);
  EXPECT_NE(std::memcmp(rows.rows(0, 1).data, rows.rows(1, 1).data, kRow), 0);
}

TEST_F(CalibrationTest, MessagesTakeTime) {
  for (const ByteTime line :
       {time_messages(world_, backend_), time_query_exchange(world_, inputs())}) {
    EXPECT_GE(line.start_s, 0);
    EXPECT_GT(line.bytes_per_s, 0);
    EXPECT_TRUE(std::isfinite(line.seconds(1 << 20)));
  }
}

// A machine of which all but groups was measured.
Machine of_one_rank() {
  Machine m;
  m.dtype = Dtype::f32;
  m.chunk_rows = 64;
  m.products = {{64, 64, 1e9}};
  m.attention = {{16, 64, 1e9}};
  m.row_bytes_per_s = m.scoring_flops_per_s = m.likeness_bytes_per_s = m.best_of_keys_per_s = 1e9;
  m.thin_layers = m.thin_products = m.thin_attention = m.thin_merges =
      m.next_tokens = {{1, 0, {1e-9, 1e12}}};
  m.in_layer = {{64}};
  m.message = ByteTime{1e-6, 1e9};
  return m;
}

TEST(Layers, OfSeveralRanksTakeMoreOfBothParts) {
  Machine m = of_one_rank();
  ModelConfig config;
  config.hidden_size = config.intermediate_size = 64;
  config.n_heads = config.n_kv_heads = 4;
  config.head_dim = 16;
  m.in_layer = {{config.hidden_size, 1.5, 3}};
  const Machine::InLayer one = in_layer_like(m, config, 1024, 0.5);
  const Machine::InLayer two = in_layer_like(m, config, 1024, 1);
  EXPECT_EQ(one.hidden_size, config.hidden_size);
  EXPECT_NEAR(two.products / one.products, 2, 1e-9);
  EXPECT_NEAR(two.attention / one.attention, 2, 1e-9);
  EXPECT_NEAR(one.attention / one.products, 2, 1e-9);
}

TEST(Groups, AreTimedTogetherWithTheirExchanges) {
  const Communicator world = Communicator::world();
  const Ranks ranks{.world = world.split(0), .group = world.split(0)};
  Options options;
  options.device = "cpu";
  options.shard_weights = "on";
  GroupSizes sizes;
  sizes.n_few = 64;
  sizes.n_many = 256;
  sizes.n_rows = {1};
  sizes.few_layers = 1;
  sizes.more_layers = 2;
  sizes.wide.vocab_size = 512;
  sizes.wide.hidden_size = 64;
  sizes.wide.head_dim = 16;
  sizes.wide.n_heads = 4;
  sizes.wide.n_kv_heads = 2;
  sizes.wide.intermediate_size = 256;
  sizes.narrow = sizes.wide;
  sizes.narrow.intermediate_size = 64;
  sizes.narrow.vocab_size = 64;
  const auto group = measure_group(of_one_rank(), options, ranks, sizes);
  if (world.size() == 1) {
    EXPECT_FALSE(group);
    return;
  }
  ASSERT_TRUE(group);
  EXPECT_EQ(group->n_ranks, world.size());
  ASSERT_EQ(group->thin_layers.size(), 1);
  ASSERT_EQ(group->next_tokens.size(), 1);
  for (const Machine::Thin& thin : group->thin_layers) EXPECT_GT(thin.line.seconds(1e5), 0);
  EXPECT_GE(group->copy_s_a_byte, 0);
  EXPECT_GE(group->recall_wait.start_s, 0);
  EXPECT_EQ(group->parts.size(), 1);
  // All ranks have agreed on it: they share clocks' readings.
  for (const double other : world.allgather(group->in_layer.products))
    EXPECT_EQ(other, group->in_layer.products);
}

TEST(Groups, AreNoneWhereWeightsAreNotSharedOut) {
  Machine m = of_one_rank();
  const Communicator world = Communicator::world();
  const Ranks ranks{.world = world.split(0), .group = world.split(0)};
  measure_groups(m, {}, ranks);
  EXPECT_TRUE(m.groups.empty());
}

}  // namespace
}  // namespace starattn
