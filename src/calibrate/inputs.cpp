// SPDX-License-Identifier: Apache-2.0
#include "calibrate/inputs.h"

#include <algorithm>
#include <span>

#include "base/error.h"
#include "base/random.h"

namespace starattn {

std::vector<std::byte> random_numbers(std::int64_t n, Dtype dtype) {
  STARATTN_CHECK(dtype == Dtype::f32 || dtype == Dtype::bf16);
  std::vector<float> wide;
  std::vector<std::uint16_t> narrow;
  for (std::int64_t i = 0; i < n; ++i) {
    wide.push_back(static_cast<float>(2 * random_unit(2, static_cast<std::uint64_t>(i)) - 1));
    narrow.push_back(f32_to_bf16(wide.back()));
  }
  const auto bytes =
      dtype == Dtype::f32 ? std::as_bytes(std::span(wide)) : std::as_bytes(std::span(narrow));
  return {bytes.begin(), bytes.end()};
}

CalibrationInputs::CalibrationInputs(Backend& backend)
    : backend_(backend), numbers_(static_cast<std::size_t>(kWidest * kWidest)) {
  for (std::size_t i = 0; i < numbers_.size(); ++i)
    numbers_[i] = f32_to_bf16(static_cast<float>(random_unit(1, i) - 0.5) * 0.03F);
  backend_.load(weight(kWidest, kWidest));
}

WeightView CalibrationInputs::weight(std::int64_t n_out, std::int64_t n_in,
                                     std::int64_t turn) const {
  const std::int64_t n_places = std::ssize(numbers_) / (n_out * n_in);
  const std::int64_t first = turn % n_places * n_out * n_in;
  return {reinterpret_cast<const std::byte*>(numbers_.data() + first), Dtype::bf16, n_out, n_in};
}

RowBuffer CalibrationInputs::rows(std::int64_t n_rows, std::int64_t width) const {
  RowBuffer buffer(backend_, n_rows, width);
  const std::int64_t n_made = std::min<std::int64_t>(n_rows, 1024);
  const std::vector<std::byte> made = random_numbers(n_made * width, backend_.activation_dtype());
  const std::span<const std::byte> bytes(made);
  const std::size_t row_bytes = bytes.size() / static_cast<std::size_t>(n_made);
  for (std::int64_t row = 0; row < n_rows; row += n_made) {
    const std::int64_t n = std::min(n_made, n_rows - row);
    backend_.upload(bytes.first(static_cast<std::size_t>(n) * row_bytes), buffer.rows(row, n).data);
  }
  return buffer;
}

Buffer CalibrationInputs::floats(std::int64_t n) const {
  Buffer buffer = backend_.allocate(static_cast<std::size_t>(n) * sizeof(float));
  const std::vector<float> halves(static_cast<std::size_t>(n), 0.5F);
  backend_.upload(std::as_bytes(std::span(halves)), buffer.data());
  return buffer;
}

std::size_t CalibrationInputs::kv_bytes(std::int64_t n_keys, const AttentionShape& shape) const {
  return static_cast<std::size_t>(2 * n_keys * shape.n_kv_heads * shape.head_dim) *
         size_of(backend_.activation_dtype());
}

KvSegment CalibrationInputs::segment(const std::byte* keys, std::int64_t n_keys,
                                     const AttentionShape& shape, bool is_causal) const {
  return {keys, keys + kv_bytes(n_keys, shape) / 2, n_keys, is_causal};
}

}  // namespace starattn
