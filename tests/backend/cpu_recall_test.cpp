// SPDX-License-Identifier: Apache-2.0
// Recall's operations on the CPU backend against the plain formula (docs/recall.md).
#include "cpu_backend.h"

namespace starattn {
namespace {

using CpuRecall = CpuBackendTest;

TEST_P(CpuRecall, RecallScoresFollowTheFormula) {
  const AttentionShape shape{6, 2, 32};
  constexpr std::int64_t kRows = 70, kKeys = 300, kBefore = 45;
  std::mt19937 random(3);
  std::normal_distribution<float> bell;
  const auto numbers = [&](std::int64_t n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = bell(random);
    return values;
  };
  const std::vector<float> q = numbers(kRows * 6 * 32), k = numbers(kKeys * 2 * 32),
                           before = numbers(kBefore * 2 * 32);
  const auto dot = [&](std::int64_t row, std::int64_t head, const std::vector<float>& keys,
                       std::int64_t token) {
    double sum = 0;
    for (std::int64_t c = 0; c < 32; ++c)
      sum += static_cast<double>(q[static_cast<std::size_t>((row * 6 + head) * 32 + c)]) *
             keys[static_cast<std::size_t>((token * 2 + head / 3) * 32 + c)];
    return sum / std::sqrt(32.0);
  };
  const auto bytes = [](const std::vector<float>& values) {
    return reinterpret_cast<std::byte*>(const_cast<float*>(values.data()));
  };
  const Rows rows{bytes(q), kRows, 6 * 32};
  std::vector<float> z(kRows * 6), scores(kKeys);
  backend_->log_sum_exp(rows, {bytes(before), nullptr, kBefore, false}, {}, shape, z.data());
  backend_->score_keys(rows, z.data(), {bytes(k), nullptr, kKeys, false}, shape, scores.data());
  for (const std::int64_t token : {0, 127, 128, 299}) {
    double expected = 0;
    for (std::int64_t head = 0; head < 6; ++head) {
      double best = -1e30;
      for (std::int64_t row = 0; row < kRows; ++row) {
        double sum = 0;
        for (std::int64_t t = 0; t < kBefore; ++t) sum += std::exp(dot(row, head, before, t));
        EXPECT_NEAR(z[static_cast<std::size_t>(row * 6 + head)], std::log(sum), 1e-4);
        best = std::max(best, dot(row, head, k, token) - std::log(sum));
      }
      expected += std::exp(best) / 6;
    }
    EXPECT_NEAR(scores[static_cast<std::size_t>(token)], expected, 1e-4 * expected);
  }
}

TEST_P(CpuRecall, TheOddRowsOutAsk) {
  const AttentionShape shape{4, 2, 16};
  std::vector<float> k(200 * 32, 1.0F);
  for (const std::size_t odd : {7, 150, 199})
    for (std::size_t c = 0; c < 32; c += 2) k[odd * 32 + c] = -1.0F;
  std::vector<std::int32_t> rows(3);
  backend_->choose_asking_rows({reinterpret_cast<std::byte*>(k.data()), nullptr, 200, false}, shape,
                               3, rows.data());
  EXPECT_EQ(rows, (std::vector<std::int32_t>{7, 150, 199}));
}

TEST_P(CpuRecall, OfEqualScoresTheEarlierAreChosen) {
  const std::vector<float> scores = {1, std::nanf(""), 3, 1, 3, 1, -INFINITY, 1};
  std::vector<std::int32_t> best(4);
  std::vector<float> theirs(4);
  backend_->choose_best(scores.data(), 8, 4, best.data(), theirs.data());
  EXPECT_EQ(best, (std::vector<std::int32_t>{0, 2, 3, 4}));
  EXPECT_EQ(theirs, (std::vector<float>{1, 3, 1, 3}));
}

STARATTN_ON_EVERY_INSTRUCTION_SET(CpuRecall);

}  // namespace
}  // namespace starattn
