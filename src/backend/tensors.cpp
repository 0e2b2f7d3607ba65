// SPDX-License-Identifier: Apache-2.0
#include "backend/tensors.h"

#include <cstring>

#include <algorithm>

#include "backend/backend.h"

namespace starattn {

float value_at(const WeightView& w, std::int64_t i) {
  const std::byte* at = w.data + static_cast<std::size_t>(i) * size_of(w.dtype);
  if (w.dtype == Dtype::f32) {
    float value = 0;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof(bits));
  return w.dtype == Dtype::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

KvSegment KvSegment::from(std::int64_t first, std::size_t row_bytes) const {
  STARATTN_CHECK(first >= 0 && first <= n_tokens);
  KvSegment rest = *this;
  rest.k += static_cast<std::size_t>(first) * row_bytes;
  if (v) rest.v += static_cast<std::size_t>(first) * row_bytes;
  rest.n_tokens -= first;
  rest.exponents = nullptr;
  if (has_edge()) rest.first_seen -= first;
  return rest;
}

KvSegment through_window(KvSegment keys, std::int64_t window, std::int64_t place,
                         std::int64_t n_rows, std::size_t row_bytes) {
  STARATTN_CHECK(window >= 1 && n_rows >= 1);
  if (window >= place + n_rows) return keys;  // every row sees the first token
  keys.first_seen = place - window + 1;
  keys = keys.from(std::clamp<std::int64_t>(keys.first_seen, 0, keys.n_tokens), row_bytes);
  if (keys.first_seen + n_rows <= 1) keys.first_seen = KvSegment::kAllSeen;
  return keys;
}

RowBuffer::RowBuffer(Backend& backend, std::int64_t max_rows, std::int64_t width)
    : max_rows_(max_rows),
      width_(width),
      row_bytes_(static_cast<std::size_t>(width) * size_of(backend.activation_dtype())),
      memory_(backend.allocate(static_cast<std::size_t>(max_rows) * row_bytes_)) {}

PartialBuffer::PartialBuffer(Backend& backend, std::int64_t n_rows, const AttentionShape& shape)
    : n_rows_(n_rows),
      n_heads_(shape.n_heads),
      head_dim_(shape.head_dim),
      memory_(backend.allocate(n_bytes(n_rows, shape))) {}

}  // namespace starattn
