// SPDX-License-Identifier: Apache-2.0
// Rows that are rounded to FP8 before products (--activations fp8) on the GPU against the CPU's:
// Hopper's FP8 products, and what goes the other way, and a row's bits whatever is beside it.
#include <span>

#include "both_sides.h"

namespace starattn {
namespace {

struct ProductShape {
  std::int64_t n_rows, n_in, n_out, block_rows, block_cols;
};
constexpr std::int64_t kWhole = 1 << 20;
// Rows and columns that fill neither a tile nor a step; scales of rows, blocks and the whole. The
// last two no FP8 product takes.
constexpr ProductShape kShapes[] = {{1, 16, 8, 1, kWhole},        {300, 144, 136, 1, kWhole},
                                    {257, 1040, 264, 24, kWhole}, {700, 1152, 640, 128, 128},
                                    {500, 512, 384, 256, 256},    {129, 64, 72, kWhole, kWhole},
                                    {65, 384, 80, 64, 128},       {65, 96, 80, 32, 20}};

class CudaF8Rows : public CudaBackend {
 protected:
  void SetUp() override {
    CudaBackend::SetUp();
    if (IsSkipped()) return;
    for (Side* side : {cpu_.get(), gpu_.get()}) side->backend->round_rows_to_f8();
  }

  WeightView f8_matrix(const ProductShape& shape) {
    const std::int64_t rows = std::min(shape.block_rows, shape.n_out);
    const std::int64_t columns = std::min(shape.block_cols, shape.n_in);
    const std::int64_t n_scales =
        (shape.n_out + rows - 1) / rows * ((shape.n_in + columns - 1) / columns);
    Floats& scales = scales_.emplace_back();
    for (const float number : numbers_.bell(n_scales)) scales.push_back(0.5F + std::abs(number));
    std::vector<std::uint8_t>& values = values_.emplace_back();
    const float deviation = 1 / std::sqrt(static_cast<float>(shape.n_in));
    for (const float number : numbers_.bell(shape.n_out * shape.n_in, deviation))
      values.push_back(f32_to_f8(number));
    return {reinterpret_cast<const std::byte*>(values.data()),
            Dtype::f8,
            shape.n_out,
            shape.n_in,
            {scales.data(), rows, columns}};
  }
  static Floats multiply(Side& side, const Floats& x, const Projection& to) {
    side.backend->linear(side.rows(x, to.w.n_cols), to, Product::chunk);
    return side.get(to.y);
  }

  std::list<std::vector<std::uint8_t>> values_;
  std::list<Floats> scales_;
};

TEST_F(CudaF8Rows, AreMultipliedAlike) {
  for (const ProductShape& shape : kShapes) {
    SCOPED_TRACE(shape.n_in);
    const WeightView w = f8_matrix(shape);
    const WeightView bias = weight(numbers_.bell(shape.n_out), shape.n_out);
    const Floats x = numbers_.bell(shape.n_rows * shape.n_in, 30);
    for (const bool has_bias : {false, true}) {
      expect_same(kTwoRoundings, [&](Side& side) {
        const Rows y = side.empty(shape.n_rows, shape.n_out);
        return multiply(side, x, {w, has_bias ? bias : WeightView{}, y});
      });
    }
    const Floats before = numbers_.bell(shape.n_rows * shape.n_out, 30);
    expect_same(kTwoRoundings, [&](Side& side) {
      const Rows sum = side.rows(before, shape.n_out);
      side.backend->add_linear(sum, side.rows(x, shape.n_in), w, WeightView{}, Product::chunk,
                               side.empty(shape.n_rows, shape.n_out));
      return side.get(sum);
    });
  }
}

// Rows of a matrix, as fused ones are cut, and beside a wider one.
TEST_F(CudaF8Rows, AreMultipliedWithPartsAndWithOthers) {
  const WeightView whole = f8_matrix({0, 256, 640, 128, 128});
  const WeightView wide = weight(numbers_.bell(40 * 256, 0.06F), 256);
  const WeightView first = whole.rows(0, 256), second = whole.rows(256, 384), none;
  const Floats x = numbers_.bell(300 * 256);
  for (int i = 0; i < 3; ++i) {
    expect_same(kTwoRoundings, [&](Side& side) {
      const Rows y[] = {side.empty(300, 256), side.empty(300, 384), side.empty(300, 40)};
      const Projection all[] = {{first, none, y[0]}, {second, none, y[1]}, {wide, none, y[2]}};
      side.backend->linear_all(side.rows(x, 256), all, Product::chunk);
      return side.get(y[i]);
    });
  }
}

TEST_F(CudaF8Rows, HaveBitsOfTheirOwn) {
  const ProductShape shape{600, 1024, 384, 128, 128};
  const WeightView w = f8_matrix(shape), none;
  const Floats x = numbers_.bell(shape.n_rows * shape.n_in);
  const Floats all = multiply(*gpu_, x, {w, none, gpu_->empty(shape.n_rows, shape.n_out)});
  for (const std::int64_t n : {1, 77, 333}) {
    const std::int64_t first = 150;
    const Floats some(x.begin() + first * shape.n_in, x.begin() + (first + n) * shape.n_in);
    const Floats y = multiply(*gpu_, some, {w, none, gpu_->empty(n, shape.n_out)});
    EXPECT_TRUE(std::equal(y.begin(), y.end(), all.begin() + first * shape.n_out)) << n;
  }
}

TEST_F(CudaF8Rows, ThatAreNotFiniteStaySo) {
  for (const ProductShape& shape : {kShapes[3], kShapes[7]}) {
    const WeightView w = f8_matrix(shape), none;
    Floats x = numbers_.bell(shape.n_rows * shape.n_in);
    x[static_cast<std::size_t>(5 * shape.n_in + 3)] = INFINITY;
    const Floats y = multiply(*gpu_, x, {w, none, gpu_->empty(shape.n_rows, shape.n_out)});
    for (std::size_t i = 0; i < y.size(); ++i)
      ASSERT_EQ(std::isfinite(y[i]), i / static_cast<std::size_t>(shape.n_out) != 5) << i;
  }
}

}  // namespace
}  // namespace starattn
