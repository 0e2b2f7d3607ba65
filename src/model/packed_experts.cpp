// SPDX-License-Identifier: Apache-2.0
#include "model/packed_experts.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/on_all_cores.h"

namespace starattn {
namespace {

// E2M1: a sign, two bits of exponent, one of mantissa.
constexpr float kFp4[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0F, -0.5, -1, -1.5, -2, -3, -4, -6};
constexpr std::int64_t kBlockBytes = PackedExperts::kBlock / 2;

float value_of(std::byte pair, bool is_high, float scale) {
  const int two = std::to_integer<int>(pair);
  return kFp4[is_high ? two >> 4 : two & 15] * scale;
}

// n_in numbers as FP8; a byte has two, the low half first. Returns their scale.
float to_f8_row(const std::byte* values, const std::byte* scales, std::int64_t n_in,
                std::byte* to) {
  float largest = 0;
  for (std::int64_t block = 0; block * PackedExperts::kBlock < n_in; ++block) {
    const float scale = e8m0_to_f32(std::to_integer<std::uint8_t>(scales[block]));
    for (const std::byte pair : std::span(values + block * kBlockBytes, kBlockBytes)) {
      for (const bool is_high : {false, true}) {
        const float magnitude = std::abs(value_of(pair, is_high, scale));
        if (std::isfinite(magnitude)) largest = std::max(largest, magnitude);
      }
    }
  }
  const std::uint8_t exponent = f8_exponent(largest);
  for (std::int64_t block = 0; block * PackedExperts::kBlock < n_in; ++block) {
    const float scale =
        e8m0_to_f32(std::to_integer<std::uint8_t>(scales[block])) * f8_inverse_scale(exponent);
    std::byte codes[std::size(kFp4)];
    for (std::size_t i = 0; i < std::size(kFp4); ++i)
      codes[i] = std::byte{f32_to_f8(kFp4[i] * scale)};
    for (const std::byte pair : std::span(values + block * kBlockBytes, kBlockBytes)) {
      *to++ = codes[std::to_integer<int>(pair) & 15];
      *to++ = codes[std::to_integer<int>(pair) >> 4];
    }
  }
  return f8_scale(exponent);
}

}  // namespace

WeightView PackedExperts::add(const Source& source, std::int64_t expert, std::int64_t first,
                              std::int64_t step) {
  const bool is_mxfp4 = source.scales != nullptr;
  STARATTN_CHECK((is_mxfp4 || source.expert_scales) == (source.dtype == Dtype::f8) &&
                 (!is_mxfp4 || source.n_in % kBlock == 0));
  const std::int64_t n_rows = (source.n_out - first + step - 1) / step;
  const auto n_bytes = static_cast<std::size_t>(n_rows * source.n_in) * size_of(source.dtype);
  Matrix matrix{
      source,
      expert,
      first,
      step,
      n_rows,
      std::make_unique_for_overwrite<std::byte[]>(n_bytes),
      std::make_unique_for_overwrite<float[]>(is_mxfp4 ? static_cast<std::size_t>(n_rows) : 0)};
  WeightView view{matrix.numbers.get(), source.dtype, n_rows, source.n_in};
  if (is_mxfp4) view.scales = {matrix.row_scales.get(), 1, source.n_in};
  if (source.expert_scales) view.scales = {source.expert_scales + expert, n_rows, source.n_in};
  matrices_.emplace(view.data, std::move(matrix));
  return view;
}

const PackedExperts::Matrix* PackedExperts::find(const WeightView& part) const {
  const auto behind = matrices_.upper_bound(part.data);
  if (behind == matrices_.begin()) return nullptr;
  const auto& [data, matrix] = *std::prev(behind);
  const auto n_bytes =
      static_cast<std::size_t>(matrix.n_rows * matrix.source.n_in) * size_of(matrix.source.dtype);
  return static_cast<std::size_t>(part.data - data) < n_bytes ? &matrix : nullptr;
}

std::span<const std::byte> PackedExperts::bytes_in_file(const WeightView& part) const {
  const Matrix* matrix = find(part);
  STARATTN_CHECK(matrix);
  const Source& source = matrix->source;
  const std::int64_t n = source.n_out * source.n_in;
  const auto n_bytes = source.scales ? static_cast<std::size_t>(n / 2)
                                     : static_cast<std::size_t>(n) * size_of(source.dtype);
  return {source.values + static_cast<std::size_t>(matrix->expert) * n_bytes, n_bytes};
}

void PackedExperts::fill(const WeightView& part) const {
  const Matrix* matrix = find(part);
  if (!matrix) return;
  const Source& source = matrix->source;
  const std::size_t number = size_of(source.dtype);
  const auto row_bytes = static_cast<std::size_t>(source.n_in) * number;
  const auto at = static_cast<std::size_t>(part.data - matrix->numbers.get());
  STARATTN_CHECK(at % row_bytes == 0);
  const auto first_row = static_cast<std::int64_t>(at / row_bytes);
  on_all_cores(static_cast<std::uint64_t>(part.n_rows), row_bytes, [&](auto begin, auto end) {
    for (auto i = static_cast<std::int64_t>(begin); i < static_cast<std::int64_t>(end); ++i) {
      std::byte* to = matrix->numbers.get() + at + static_cast<std::size_t>(i) * row_bytes;
      const std::int64_t out = matrix->first + (first_row + i) * matrix->step;
      if (source.scales) {
        const std::int64_t block = (matrix->expert * source.n_out + out) * (source.n_in / kBlock);
        matrix->row_scales[static_cast<std::size_t>(first_row + i)] =
            to_f8_row(source.values + block * kBlockBytes, source.scales + block, source.n_in, to);
        continue;
      }
      const std::byte* column =
          source.values +
          static_cast<std::size_t>(matrix->expert * source.n_in * source.n_out + out) * number;
      for (std::int64_t c = 0; c < source.n_in; ++c)
        std::memcpy(to + static_cast<std::size_t>(c) * number,
                    column + static_cast<std::size_t>(c * source.n_out) * number, number);
    }
  });
}

}  // namespace starattn
