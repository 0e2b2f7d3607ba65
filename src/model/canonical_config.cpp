// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "model/config.h"

namespace starattn {

std::string canonical_text(const ModelConfig& c) {
  return fmt::format(
      "{} vocab={} hidden={} intermediate={} layers={} heads={} kv_heads={} head_dim={} "
      "eps={:.17g} rope={} {:.17g} "
      "{:.17g} {:.17g} {:.17g} {} {:.17g} {:.17g} {:.17g} {:.17g} {:.17g} {}",
      c.architecture, c.vocab_size, c.hidden_size, c.intermediate_size, c.n_layers, c.n_heads,
      c.n_kv_heads, c.head_dim, c.rms_norm_eps, static_cast<int>(c.rope.kind), c.rope.theta,
      c.rope.factor, c.rope.low_freq_factor, c.rope.high_freq_factor, c.rope.original_positions,
      c.rope.beta_fast, c.rope.beta_slow, c.rope.attention_factor, c.rope.mscale,
      c.rope.mscale_all_dim, c.rope.truncate);
}

}  // namespace starattn
