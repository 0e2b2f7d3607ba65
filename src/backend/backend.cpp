// SPDX-License-Identifier: Apache-2.0
#include "backend/backend.h"

namespace starattn {

void Backend::next_tokens(Rows x, const WeightView& w, std::span<const Draw> draws,
                          std::span<Token> tokens) {
  STARATTN_CHECK(std::ssize(tokens) == x.n_rows);
  const Buffer logits = allocate(static_cast<std::size_t>(x.n_rows * w.n_rows) * sizeof(float));
  auto* values = reinterpret_cast<float*>(logits.data());
  linear_f32(x, w, values);
  draw_tokens(values, w.n_rows, draws, tokens);
}

void Backend::linear_to_host(Rows x, const WeightView& w, std::span<float> host) {
  STARATTN_CHECK(std::ssize(host) == x.n_rows * w.n_rows);
  const Buffer logits = allocate(host.size_bytes());
  linear_f32(x, w, reinterpret_cast<float*>(logits.data()));
  download(logits.data(), std::as_writable_bytes(host));
}

}  // namespace starattn
