// SPDX-License-Identifier: Apache-2.0
// Rows that are rounded to FP8 before products (--activations fp8) on the CPU backend: which
// products round them, to which numbers, and that a row is rounded by itself.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "backend/backend.h"

namespace starattn {
namespace {

using Floats = std::vector<float>;

constexpr std::int64_t kRows = 5, kIn = 40, kOut = 24;

class F8RowsTest : public ::testing::Test {
 protected:
  F8RowsTest() {
    rounding_->round_rows_to_f8();
    std::normal_distribution<float> normal;
    for (std::int64_t row = 0; row < kRows; ++row) {
      const float size = std::exp(4 * normal(generator_));  // rows of very different sizes
      for (std::int64_t i = 0; i < kIn; ++i) x_.push_back(size * normal(generator_));
    }
    for (std::int64_t i = 0; i < kOut * kIn; ++i) wide_.push_back(normal(generator_));
    for (std::int64_t i = 0; i < kOut * kIn; ++i)
      codes_.push_back(f32_to_f8(wide_[static_cast<std::size_t>(i)]));
  }

  WeightView f8_matrix() const {
    return {reinterpret_cast<const std::byte*>(codes_.data()),
            Dtype::f8,
            kOut,
            kIn,
            {scales_.data(), 8, kIn}};
  }
  WeightView wide_matrix() const {
    return {reinterpret_cast<const std::byte*>(wide_.data()), Dtype::f32, kOut, kIn};
  }
  static Rows rows_of(Floats& values, std::int64_t width) {
    return {reinterpret_cast<std::byte*>(values.data()), std::ssize(values) / width, width};
  }
  static Floats multiply(Backend& backend, Floats x, const WeightView& w, Product product) {
    Floats y(x.size() / kIn * kOut, NAN);
    backend.linear(rows_of(x, kIn), {w, WeightView{}, rows_of(y, kOut)}, product);
    return y;
  }
  // By hand.
  static Floats rounded(const Floats& x) {
    Floats all;
    for (std::size_t first = 0; first < x.size(); first += kIn) {
      float largest = 0;
      for (std::size_t i = first; i < first + kIn; ++i) largest = std::max(largest, std::abs(x[i]));
      float scale = std::exp2(std::floor(std::log2(largest)) - 9);
      while (largest / scale > 448) scale *= 2;
      for (std::size_t i = first; i < first + kIn; ++i)
        all.push_back(f8_to_f32(f32_to_f8(x[i] / scale)) * scale);
    }
    return all;
  }

  std::mt19937 generator_{11};
  std::unique_ptr<Backend> plain_ = make_cpu_backend(2), rounding_ = make_cpu_backend(2);
  Floats x_, wide_;
  const Floats scales_{0.01F, 0.3F, 2};
  std::vector<std::uint8_t> codes_;
};

TEST_F(F8RowsTest, AreThoseOfTheNearestNumbers) {
  const Floats expected = multiply(*plain_, rounded(x_), f8_matrix(), Product::chunk);
  EXPECT_EQ(multiply(*rounding_, x_, f8_matrix(), Product::chunk), expected);
  EXPECT_NE(multiply(*plain_, x_, f8_matrix(), Product::chunk), expected);
}

TEST_F(F8RowsTest, StayAsTheyAreForOtherMatricesAndInPhase2) {
  for (const Product product : {Product::chunk, Product::batch_invariant})
    EXPECT_EQ(multiply(*rounding_, x_, wide_matrix(), product),
              multiply(*plain_, x_, wide_matrix(), product));
  EXPECT_EQ(multiply(*rounding_, x_, f8_matrix(), Product::batch_invariant),
            multiply(*plain_, x_, f8_matrix(), Product::batch_invariant));
}

// What is not finite spoils its own row, and so is found behind it; zeros stay zeros.
TEST_F(F8RowsTest, ThatAreNotFiniteStaySo) {
  x_[1 * kIn + 3] = INFINITY;
  x_[2 * kIn + 9] = NAN;
  std::fill_n(x_.begin() + 3 * kIn, kIn, 0.0F);
  const Floats y = multiply(*rounding_, x_, f8_matrix(), Product::chunk);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t row = i / kOut;
    EXPECT_EQ(std::isfinite(y[i]), row != 1 && row != 2) << i;
    if (row == 3) {
      EXPECT_EQ(y[i], 0);
    }
  }
}

}  // namespace
}  // namespace starattn
