// SPDX-License-Identifier: Apache-2.0
// Keys and values in FP8 on the CPU backend: what rows hold, and that operations treat them as the
// numbers they stand for, bit by bit.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "backend/backend.h"

namespace starattn {
namespace {

using Floats = std::vector<float>;
using Bytes = std::vector<std::byte>;

constexpr AttentionShape kShape{6, 3, 32};
constexpr std::int64_t kWidth = 3 * 32;
constexpr KvLayout kLayout{Dtype::f8, 3, 32};

Rows rows_of(Floats& values, std::int64_t width) {
  return {reinterpret_cast<std::byte*>(values.data()),
          static_cast<std::int64_t>(values.size()) / width, width};
}

class F8Kv : public ::testing::Test {
 protected:
  // Tokens and heads of very different sizes.
  Floats numbers(std::int64_t n_tokens) {
    std::normal_distribution<float> normal;
    Floats values(static_cast<std::size_t>(n_tokens * kWidth));
    float size = 1;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i % 32 == 0) size = std::exp(3 * normal(generator_));
      values[i] = size * normal(generator_);
    }
    return values;
  }
  Bytes narrowed(Floats values) {
    const std::int64_t n = std::ssize(values) / kWidth;
    Bytes bytes(static_cast<std::size_t>(n) * kLayout.row_bytes(), std::byte{0xa5});
    backend_->narrow(rows_of(values, kWidth), 32, {bytes.data(), n, kLayout.row_bytes()});
    return bytes;
  }
  static Floats widened(const Bytes& bytes) {
    Floats values;
    for (std::size_t row = 0; row < bytes.size(); row += kLayout.row_bytes()) {
      for (std::size_t i = 0; i < kWidth; ++i) {
        const auto exponent = std::to_integer<std::uint8_t>(bytes[row + kWidth + i / 32]);
        values.push_back(f8_to_f32(std::to_integer<std::uint8_t>(bytes[row + i])) *
                         f8_scale(exponent));
      }
    }
    return values;
  }
  static const std::byte* data(const Floats& values) {
    return reinterpret_cast<const std::byte*>(values.data());
  }

  std::mt19937 generator_{7};
  std::unique_ptr<Backend> backend_ = make_cpu_backend(3);
};

TEST_F(F8Kv, RowsAreNumbersAndExponents) {
  EXPECT_EQ(kLayout.row_bytes(), 112U);  // 96 + 3, filled up
  EXPECT_EQ((KvLayout{Dtype::f8, 8, 128}).row_bytes(), 1040U);
  EXPECT_EQ((KvLayout{Dtype::bf16, 8, 128}).row_bytes(), 2048U);
  Floats values = numbers(50);
  std::fill_n(values.begin() + kWidth + 32, 32, 0.0F);
  values[0] = NAN;
  const Bytes bytes = narrowed(values);
  const Floats wide = widened(bytes);
  EXPECT_TRUE(std::isnan(wide[0]));
  for (std::size_t i = 1; i < values.size(); ++i) {
    const std::size_t head = i / 32 * 32;
    float largest = 0;
    for (std::size_t j = std::max<std::size_t>(head, 1); j < head + 32; ++j)
      largest = std::max(largest, std::abs(values[j]));
    // Four bits of the number, or a multiple of the smallest there is.
    EXPECT_LE(std::abs(wide[i] - values[i]),
              std::max(std::abs(values[i]) / 16, largest * std::ldexp(1.0F, -17)));
  }
  for (std::size_t row = 0; row < bytes.size(); row += kLayout.row_bytes())
    for (std::size_t i = row + kWidth + 3; i < row + kLayout.row_bytes(); ++i)
      EXPECT_EQ(bytes[i], std::byte{0});
}

TEST_F(F8Kv, IsAttendedToAsItsNumbers) {
  constexpr std::int64_t kTokens = 2500, kRows = 70;  // more than a split
  const Bytes k = narrowed(numbers(kTokens)), v = narrowed(numbers(kTokens));
  const Floats wide_k = widened(k), wide_v = widened(v);
  Floats q(kRows * 6 * 32);
  for (float& x : q) x = std::normal_distribution<float>()(generator_);
  const auto attended = [&](const KvSegment& segment, Product product) {
    PartialBuffer partial(*backend_, kRows, kShape);
    Floats out(q.size());
    backend_->attend_all(rows_of(q, 6 * 32), {&segment, 1}, kShape, product, partial.partial(),
                         rows_of(out, 6 * 32));
    return out;
  };
  for (const Product product : {Product::chunk, Product::batch_invariant}) {
    for (const bool is_causal : {false, true}) {
      EXPECT_EQ(attended({k.data(), v.data(), kTokens, is_causal, true}, product),
                attended({data(wide_k), data(wide_v), kTokens, is_causal, false}, product));
    }
  }
}

TEST_F(F8Kv, IsRecalledAsItsNumbers) {
  constexpr std::int64_t kTokens = 300, kAsking = 20;
  const Bytes k = narrowed(numbers(kTokens)), other = narrowed(numbers(40));
  const Floats wide_k = widened(k), wide_other = widened(other);
  Floats q(kAsking * 6 * 32);
  for (float& x : q) x = std::normal_distribution<float>()(generator_);
  const auto results = [&](const KvSegment& keys, const KvSegment& before) {
    std::vector<std::int32_t> rows(kAsking);
    Floats z(kAsking * 6), scores(kTokens);
    backend_->choose_asking_rows(keys, kShape, kAsking, rows.data());
    backend_->log_sum_exp(rows_of(q, 6 * 32), before, keys, kShape, z.data());
    backend_->score_keys(rows_of(q, 6 * 32), z.data(), keys, kShape, scores.data());
    return std::tuple(rows, z, scores);
  };
  EXPECT_EQ(
      results({k.data(), nullptr, kTokens, false, true}, {other.data(), nullptr, 40, false, true}),
      results({data(wide_k), nullptr, kTokens}, {data(wide_other), nullptr, 40}));
}

}  // namespace
}  // namespace starattn
