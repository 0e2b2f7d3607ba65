// SPDX-License-Identifier: Apache-2.0
// Products of few rows with FP8 matrices, which several kernels share out by the number of rows: a
// row's bits are its own whoever has it.
#include <span>

#include "both_sides.h"

namespace starattn {
namespace {

struct MatrixShape {
  std::int64_t n_out, n_in, block_rows, block_cols;
};

class CudaThinF8 : public CudaBackend {
 protected:
  // Rows first_row and on of a matrix of blocks.
  WeightView f8_matrix(const MatrixShape& shape, std::int64_t first_row = 0) {
    const std::int64_t n_rows = first_row + shape.n_out;
    const std::int64_t n_scales = (n_rows + shape.block_rows - 1) / shape.block_rows *
                                  ((shape.n_in + shape.block_cols - 1) / shape.block_cols);
    Floats& scales = scales_.emplace_back();
    for (const float number : numbers_.bell(n_scales)) scales.push_back(0.5F + std::abs(number));
    std::vector<std::uint8_t>& values = values_.emplace_back();
    const float deviation = 1 / std::sqrt(static_cast<float>(shape.n_in));
    for (const float number : numbers_.bell(shape.n_out * shape.n_in, 64 * deviation))
      values.push_back(f32_to_f8(number));
    return {reinterpret_cast<const std::byte*>(values.data()),
            Dtype::f8,
            shape.n_out,
            shape.n_in,
            {scales.data(), shape.block_rows, shape.block_cols, first_row}};
  }

  std::list<std::vector<std::uint8_t>> values_;
  std::list<Floats> scales_;
};

// Outputs that fill no tile, columns that fill no run of 128 or are too many for a kernel, and
// scales of blocks and of rows.
constexpr MatrixShape kShapes[] = {
    {40, 16, 1, 16},        {200, 528, 64, 128},   {129, 1088, 128, 256},
    {1000, 4096, 1, 4096},  {136, 2880, 128, 128}, {300, 8192, 128, 8192},
    {136, 14336, 128, 128}, {72, 14352, 1, 14352}, {24, 16384, 24, 512}};

TEST_F(CudaThinF8, RowsHaveBitsOfTheirOwn) {
  constexpr std::int64_t kRows = 70;
  for (const MatrixShape& shape : kShapes) {
    SCOPED_TRACE(shape.n_in);
    const WeightView w = f8_matrix(shape, 5), up = f8_matrix(shape), none;
    const WeightView first = w.rows(0, shape.n_out / 2);
    const WeightView rest = w.rows(shape.n_out / 2, shape.n_out - shape.n_out / 2);
    const WeightView bias = weight(numbers_.bell(shape.n_out), shape.n_out);
    const Floats x = numbers_.bell(kRows * shape.n_in);
    const Floats before = numbers_.bell(kRows * shape.n_out);
    // The results of rows `from` to from + n - 1, one operation's after the other's.
    const auto results_of = [&](std::int64_t from, std::int64_t n) {
      const auto rows_of = [&](const Floats& values, std::int64_t width) {
        return gpu_->rows(
            Floats(values.begin() + from * width, values.begin() + (from + n) * width), width);
      };
      const auto empty = [&](std::int64_t width) { return gpu_->empty(n, width); };
      const Rows some = rows_of(x, shape.n_in);
      constexpr Product kThin = Product::batch_invariant;
      std::vector<Floats> results;

      const Rows y = empty(shape.n_out);
      gpu_->backend->linear(some, {w, bias, y}, kThin);
      results.push_back(gpu_->get(y));

      const Rows sum = rows_of(before, shape.n_out);
      gpu_->backend->add_linear(sum, some, w, none, kThin, empty(shape.n_out));
      results.push_back(gpu_->get(sum));

      const Rows gated = empty(shape.n_out);
      gpu_->backend->linear_gated(some, {w, bias, gated}, {up, none, empty(shape.n_out)}, kThin);
      results.push_back(gpu_->get(gated));

      const Rows parts[] = {empty(first.n_rows), empty(rest.n_rows), empty(shape.n_out)};
      const Projection three[] = {
          {first, none, parts[0]}, {rest, none, parts[1]}, {up, none, parts[2]}};
      gpu_->backend->linear_all(some, three, kThin);
      for (const Rows& part : parts) results.push_back(gpu_->get(part));

      gpu_->backend->linear_to_host(
          some, w, results.emplace_back(static_cast<std::size_t>(n * shape.n_out)));
      return results;
    };
    const std::vector<Floats> all = results_of(0, kRows);
    for (const auto& [from, n] : {std::pair{0, 1},
                                  {31, 1},
                                  {63, 1},
                                  {20, 7},
                                  {20, 8},
                                  {20, 9},
                                  {20, 16},
                                  {20, 17},
                                  {20, 31},
                                  {20, 32},
                                  {20, 33}}) {
      const std::vector<Floats> some = results_of(from, n);
      for (std::size_t i = 0; i < all.size(); ++i) {
        const auto width = static_cast<std::int64_t>(all[i].size()) / kRows;
        EXPECT_TRUE(std::equal(some[i].begin(), some[i].end(), all[i].begin() + from * width))
            << "operation " << i << ", rows " << from << " to " << from + n - 1;
      }
    }
  }
}

// So many outputs that every block has several tiles, and a last run of columns that is half empty.
TEST_F(CudaThinF8, TilesFollowEachOther) {
  const MatrixShape shape{9000, 1088, 128, 128};
  const WeightView w = f8_matrix(shape), up = f8_matrix(shape), none;
  for (const std::int64_t n_rows : {1, 12, 20}) {
    SCOPED_TRACE(n_rows);
    const Floats x = numbers_.bell(n_rows * shape.n_in);
    expect_same(kOneRounding, [&](Side& side) {
      const Rows y = side.empty(n_rows, shape.n_out);
      side.backend->linear(side.rows(x, shape.n_in), {w, none, y}, Product::batch_invariant);
      return side.get(y);
    });
    expect_same(2 * kTwoRoundings, [&](Side& side) {
      const Rows gate = side.empty(n_rows, shape.n_out);
      side.backend->linear_gated(side.rows(x, shape.n_in), {w, none, gate},
                                 {up, none, side.empty(n_rows, shape.n_out)},
                                 Product::batch_invariant);
      return side.get(gate);
    });
  }
}

}  // namespace
}  // namespace starattn
