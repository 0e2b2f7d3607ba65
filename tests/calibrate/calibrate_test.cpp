// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>

#include "backend/backend.h"
#include "calibrate/inputs.h"
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

}  // namespace
}  // namespace starattn
