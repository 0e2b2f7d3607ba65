// SPDX-License-Identifier: Apache-2.0
#include "backend/work_counter.h"

#include <algorithm>

namespace starattn {

using trace::Work;

namespace {

// Of a row and a token that it sees.
double pairs(std::int64_t n_rows, const KvSegment& segment) {
  const double hidden = segment.causal ? number(n_rows) * number(n_rows - 1) / 2 : 0;
  if (!segment.has_edge()) return number(n_rows) * number(segment.n_tokens) - hidden;
  double sum = 0;
  for (std::int64_t row = 0; row < n_rows; ++row) {
    const std::int64_t end =
        segment.causal ? segment.n_tokens - n_rows + 1 + row : segment.n_tokens;
    sum += number(
        std::max<std::int64_t>(0, end - std::max<std::int64_t>(0, segment.first_seen + row)));
  }
  return sum;
}

}  // namespace

WorkCounter::WorkCounter(const Backend& backend)
    : backend_(&backend),
      element_bytes_(static_cast<double>(size_of(backend.activation_dtype()))) {}

Work WorkCounter::moved(std::span<const std::byte> bytes) {
  return {.n_bytes = static_cast<double>(bytes.size())};
}

Work WorkCounter::rows(Rows x, double n_times) const {
  return {.n_rows = x.n_rows, .n_bytes = n_times * number(x.n_rows * x.width) * element_bytes_};
}

Work WorkCounter::product(Rows x, const WeightView& w) const {
  return {.n_rows = x.n_rows,
          .n_in = w.n_cols,
          .n_out = w.n_rows,
          .flop = 2 * number(x.n_rows * w.n_rows * w.n_cols),
          .n_bytes = static_cast<double>(backend_->bytes_in_memory(w)) +
                     number(x.n_rows * (w.n_rows + w.n_cols)) * element_bytes_};
}

Work WorkCounter::products(Rows x, std::span<const Projection> to) const {
  Work all;
  for (const Projection& one : to) {
    const Work work = product(x, one.w);
    all.n_rows = work.n_rows;
    all.n_in = work.n_in;
    all.n_out += work.n_out;
    all.flop += work.flop;
    all.n_bytes += work.n_bytes;
  }
  return all;
}

double WorkCounter::kv_bytes(const KvSegment& segment, const AttentionShape& shape) const {
  const KvLayout layout{segment.is_f8 ? Dtype::f8 : backend_->activation_dtype(), shape.n_kv_heads,
                        shape.head_dim};
  return 2 * number(segment.n_tokens) * static_cast<double>(layout.row_bytes());
}

Work WorkCounter::own_tokens(Rows q, std::span<const OwnTokens> own, const AttentionShape& shape,
                             std::int64_t n_parts) const {
  Work work = rows(q, 2);
  for (const OwnTokens& row : own) work.n_keys += row.n_before + 1;
  work.flop = 4 * number(shape.n_heads * shape.head_dim * work.n_keys);
  work.n_bytes += 2 * number(shape.n_kv_heads * shape.head_dim * work.n_keys) * element_bytes_ +
                  number(n_parts) * partial_bytes(q.n_rows, shape);
  return work;
}

double WorkCounter::partial_bytes(std::int64_t n_rows, const AttentionShape& shape) {
  return static_cast<double>(PartialBuffer::n_bytes(n_rows, shape));
}

Work WorkCounter::attention(Rows q, std::span<const KvSegment> segments,
                            const AttentionShape& shape) const {
  Work work = rows(q, 1);
  double n_pairs = 0;
  for (const KvSegment& segment : segments) {
    work.n_keys += segment.n_tokens;
    work.n_bytes += kv_bytes(segment, shape) + partial_bytes(q.n_rows, shape);
    n_pairs += pairs(q.n_rows, segment);
  }
  work.flop = 4 * number(shape.n_heads * shape.head_dim) * n_pairs;
  return work;
}

Work WorkCounter::partials(Partial partial, const AttentionShape& shape, double n_times) {
  return {.n_rows = partial.n_rows, .n_bytes = n_times * partial_bytes(partial.n_rows, shape)};
}

Work WorkCounter::scores(Rows q, std::int64_t n_keys, const AttentionShape& shape) const {
  return {.n_rows = q.n_rows,
          .n_keys = n_keys,
          .flop = 2 * number(shape.n_heads * shape.head_dim) * number(q.n_rows) * number(n_keys),
          .n_bytes = number(n_keys * shape.n_kv_heads * shape.head_dim) * element_bytes_};
}

}  // namespace starattn
