// SPDX-License-Identifier: Apache-2.0
#include "model/made_fp8.h"

#include <cstring>
#include <vector>

#include "model/on_all_cores.h"

namespace starattn {
namespace {

void widen_row(const WeightView& w, std::int64_t row, float* to) {
  const auto n = static_cast<std::size_t>(w.n_cols);
  const std::byte* from = w.data + static_cast<std::size_t>(row) * n * size_of(w.dtype);
  if (w.dtype == Dtype::f32) {
    std::memcpy(to, from, n * sizeof(float));
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from + i * sizeof(bits), sizeof(bits));
    to[i] = w.dtype == Dtype::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
  }
}

}  // namespace

WeightView MadeFp8::add(const WeightView& wide) {
  STARATTN_CHECK(wide.dtype != Dtype::f8);
  const auto n_rows = static_cast<std::size_t>(wide.n_rows);
  Matrix matrix{
      wide,
      std::make_unique_for_overwrite<std::byte[]>(n_rows * static_cast<std::size_t>(wide.n_cols)),
      std::make_unique_for_overwrite<float[]>(n_rows)};
  const std::byte* data = matrix.values.get();
  const WeightScales scales{matrix.scales.get(), 1, wide.n_cols};
  matrices_.emplace(data, std::move(matrix));
  return {data, Dtype::f8, wide.n_rows, wide.n_cols, scales};
}

WeightView MadeFp8::source_of(const WeightView& part) const {
  const auto behind = matrices_.upper_bound(part.data);
  if (behind == matrices_.begin() || part.dtype != Dtype::f8) return {};
  const auto& [data, matrix] = *std::prev(behind);
  const std::int64_t first_row = (part.data - data) / part.n_cols;
  if (first_row >= matrix.wide.n_rows || part.n_cols != matrix.wide.n_cols) return {};
  return matrix.wide.rows(first_row, part.n_rows);
}

void MadeFp8::fill(const WeightView& part) {
  const WeightView wide = source_of(part);
  STARATTN_CHECK(wide);
  Matrix& matrix = std::prev(matrices_.upper_bound(part.data))->second;
  const std::int64_t first_row = (part.data - matrix.values.get()) / part.n_cols;
  const auto n_cols = static_cast<std::uint64_t>(part.n_cols);
  on_all_cores(static_cast<std::uint64_t>(part.n_rows), n_cols, [&](auto begin, auto end) {
    std::vector<float> values(n_cols);
    for (std::uint64_t i = begin; i < end; ++i) {
      const std::uint64_t row = static_cast<std::uint64_t>(first_row) + i;
      widen_row(wide, static_cast<std::int64_t>(i), values.data());
      auto* to = reinterpret_cast<std::uint8_t*>(matrix.values.get()) + row * n_cols;
      matrix.scales[row] = f8_scale(to_f8(values.data(), part.n_cols, to));
    }
  });
}

}  // namespace starattn
