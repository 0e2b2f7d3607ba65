// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/f8.h"

namespace starattn::cpu {

const std::array<float, 256>& f8_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> all{};
    for (std::size_t bits = 0; bits < all.size(); ++bits)
      all[bits] = f8_to_f32(static_cast<std::uint8_t>(bits));
    return all;
  }();
  return values;
}

void widen_head(const std::byte* rows, const KvLayout& layout, std::int64_t head, std::int64_t n,
                float* to) {
  const std::array<float, 256>& values = f8_values();
  for (std::int64_t i = 0; i < n; ++i, rows += layout.row_bytes()) {
    const float scale = f8_scale(std::to_integer<std::uint8_t>(rows[layout.width() + head]));
    const std::byte* from = rows + head * layout.head_dim;
    for (std::int64_t c = 0; c < layout.head_dim; ++c)
      *to++ = values[std::to_integer<std::size_t>(from[c])] * scale;
  }
}

Rows rounded_rows(ThreadPool& pool, Rows x, std::vector<float>& memory) {
  const std::array<float, 256>& values = f8_values();
  const auto width = static_cast<std::size_t>(x.width);
  memory.resize(static_cast<std::size_t>(x.n_rows) * width);
  pool.parallel_for(x.n_rows, [&](std::int64_t row, int) {
    const std::size_t at = static_cast<std::size_t>(row) * width;
    std::vector<std::uint8_t> codes(width);
    const float scale =
        f8_scale(to_f8(reinterpret_cast<const float*>(x.data) + at, x.width, codes.data()));
    for (std::size_t i = 0; i < width; ++i) memory[at + i] = values[codes[i]] * scale;
  });
  return {reinterpret_cast<std::byte*>(memory.data()), x.n_rows, x.width};
}

const float* keys_in_f32(const KvSegment& segment, const AttentionShape& shape,
                         std::vector<float>& memory) {
  if (!segment.is_f8) return reinterpret_cast<const float*>(segment.k);
  const KvLayout layout{Dtype::f8, shape.n_kv_heads, shape.head_dim};
  memory.resize(static_cast<std::size_t>(segment.n_tokens * layout.width()));
  float* to = memory.data();
  for (std::int64_t i = 0; i < segment.n_tokens; ++i) {
    const std::byte* row = segment.k + static_cast<std::size_t>(i) * layout.row_bytes();
    for (std::int64_t head = 0; head < layout.n_heads; ++head, to += layout.head_dim)
      widen_head(row, layout, head, 1, to);
  }
  return memory.data();
}

}  // namespace starattn::cpu
