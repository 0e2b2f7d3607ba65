// SPDX-License-Identifier: Apache-2.0
#include "model/packed_experts.h"

#include <cmath>
#include <cstring>

#include "model/on_all_cores.h"

namespace starattn {
namespace {

// E2M1: a sign, two bits of exponent, one of mantissa.
constexpr float kFp4[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0F, -0.5, -1, -1.5, -2, -3, -4, -6};
constexpr std::int64_t kBlockBytes = PackedExperts::kBlock / 2;

// 2^(exponent - 127), E8M0; 255 is none.
float scale_of(std::byte exponent) {
  const int value = std::to_integer<int>(exponent);
  return value == 255 ? NAN : std::ldexp(1.0F, value - 127);
}

// n_in numbers as bf16; a byte has two, the low half first.
void widen_row(const std::byte* values, const std::byte* scales, std::int64_t n_in, std::byte* to) {
  for (std::int64_t i = 0; i < n_in; ++i) {
    const int pair = std::to_integer<int>(values[i / 2]);
    const float value =
        kFp4[i % 2 == 0 ? pair & 15 : pair >> 4] * scale_of(scales[i / PackedExperts::kBlock]);
    const std::uint16_t bits = f32_to_bf16(value);
    std::memcpy(to + static_cast<std::size_t>(i) * sizeof(bits), &bits, sizeof(bits));
  }
}

}  // namespace

WeightView PackedExperts::add(const Source& source, std::int64_t expert, std::int64_t first,
                              std::int64_t step) {
  STARATTN_CHECK(!source.scales || (source.dtype == Dtype::bf16 && source.n_in % kBlock == 0));
  const std::int64_t n_rows = (source.n_out - first + step - 1) / step;
  const auto n_bytes = static_cast<std::size_t>(n_rows * source.n_in) * size_of(source.dtype);
  Matrix matrix{source, expert, first,
                step,   n_rows, std::make_unique_for_overwrite<std::byte[]>(n_bytes)};
  const std::byte* data = matrix.numbers.get();
  matrices_.emplace(data, std::move(matrix));
  return {data, source.dtype, n_rows, source.n_in};
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
        widen_row(source.values + block * kBlockBytes, source.scales + block, source.n_in, to);
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
