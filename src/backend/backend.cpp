// SPDX-License-Identifier: Apache-2.0
#include "backend/backend.h"

namespace starattn {

void Backend::embed_tokens(std::span<const Token> tokens, const WeightView& table, Rows x) {
  STARATTN_CHECK(std::ssize(tokens) == x.n_rows);
  const Buffer there = allocate(tokens.size_bytes());
  upload_later(std::as_bytes(tokens), there.data());
  embed(reinterpret_cast<const Token*>(there.data()), table, x);
}

void Backend::next_tokens(Rows x, const WeightView& w, std::span<const Draw> draws, Token* tokens) {
  STARATTN_CHECK(std::ssize(draws) == x.n_rows);
  const Buffer logits = allocate(static_cast<std::size_t>(x.n_rows * w.n_rows) * sizeof(float));
  auto* values = reinterpret_cast<float*>(logits.data());
  linear_f32(x, w, values);
  draw_tokens(values, w.n_rows, draws, tokens);
}

void Backend::attend_from(Rows q, const KvSegment& segment, std::span<const std::int64_t> first,
                          const AttentionShape& shape, Partial partial) {
  STARATTN_CHECK(std::ssize(first) == q.n_rows && partial.n_rows == q.n_rows);
  const KvLayout layout{segment.is_f8 ? Dtype::f8 : activation_dtype(), shape.n_kv_heads,
                        shape.head_dim};
  for (std::int64_t i = 0; i < q.n_rows; ++i) {
    const KvSegment seen = segment.from(first[static_cast<std::size_t>(i)], layout.row_bytes());
    const Rows row{q.data + static_cast<std::size_t>(i) * raw(q).row_bytes, 1, q.width};
    attend_alone(row, std::span(&seen, seen.n_tokens > 0 ? 1 : 0), shape, Product::batch_invariant,
                 slice(partial, i, 1, shape));
  }
}

void Backend::add_experts(Rows x, Rows normed, std::span<const Expert> experts,
                          const GatedUnit& unit, const ExpertChoice& choice, Product product) {
  STARATTN_CHECK(!experts.empty());
  const std::int64_t n_places = choice.n_rows * choice.n_chosen;
  const RowBuffer gated(*this, n_places, experts.front().gate_proj.n_rows);
  gate_experts(normed, experts, unit, choice, product, gated.rows(n_places));
  add_gated_experts(x, gated.rows(n_places), experts, choice, product);
}

void Backend::linear_to_host(Rows x, const WeightView& w, std::span<float> host) {
  STARATTN_CHECK(std::ssize(host) == x.n_rows * w.n_rows);
  const Buffer logits = allocate(host.size_bytes());
  linear_f32(x, w, reinterpret_cast<float*>(logits.data()));
  download(logits.data(), std::as_writable_bytes(host));
}

}  // namespace starattn
