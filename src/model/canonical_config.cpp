// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "model/config.h"

namespace starattn {

namespace {

std::string text_of(const RopeConfig& rope) {
  std::string text = fmt::format(
      "{} {:.17g} {:.17g} {:.17g} {:.17g} {} {:.17g} {:.17g} {:.17g} {:.17g} {:.17g} {}",
      static_cast<int>(rope.kind), rope.theta, rope.factor, rope.low_freq_factor,
      rope.high_freq_factor, rope.original_positions, rope.beta_fast, rope.beta_slow,
      rope.attention_factor, rope.mscale, rope.mscale_all_dim, rope.truncate);
  if (rope.rotary > 0) text += fmt::format(" rotary={}", rope.rotary);
  for (const double divisor : rope.divisors) text += fmt::format(" /{:.17g}", divisor);
  return text;
}

}  // namespace

std::string canonical_text(const ModelConfig& c) {
  std::string text = fmt::format(
      "{} vocab={} hidden={} intermediate={} layers={} heads={} kv_heads={} head_dim={} "
      "eps={:.17g} rope={}",
      c.architecture, c.vocab_size, c.hidden_size, c.intermediate_size, c.n_layers, c.n_heads,
      c.n_kv_heads, c.head_dim, c.rms_norm_eps, text_of(c.rope));
  // Biases only where the family has others: version 0.1.0 never wrote them.
  if (c.qkv_bias != (c.family == Family::qwen2)) text += fmt::format(" qkv_bias={}", c.qkv_bias);
  if (c.o_bias) text += " o_bias=true";
  if (c.mlp_bias) text += " mlp_bias=true";
  if (c.family == Family::glm4_moe && c.qk_norm) text += " qk_norm=true";  // others have no choice
  if (c.rope.query_beta != 0) text += fmt::format(" query_beta={:.17g}", c.rope.query_beta);
  if (c.n_with_other_rope() > 0) {
    text +=
        fmt::format(" other_rope={} {:.17g} of=", text_of(c.other_rope), c.other_rope.query_beta);
    for (const LayerConfig& layer : c.layers) text += layer.has_other_rope ? '1' : '0';
  }
  const Multipliers& m = c.multipliers;
  if (m.embedding != 1 || m.residual != 1 || m.attention != 0)
    text +=
        fmt::format(" multipliers={:.17g} {:.17g} {:.17g}", m.embedding, m.residual, m.attention);
  if (c.mixture.n_experts > 0) {
    text += fmt::format(
        " experts={} chosen={} expert_size={} renormalise={} mixtures=", c.mixture.n_experts,
        c.mixture.n_chosen, c.mixture.expert_size, c.mixture.routing.renormalise);
    for (std::int64_t i = 0; i < c.n_layers; ++i) text += c.is_mixture(i) ? '1' : '0';
    if (c.mixture.routing.is_sigmoid)
      text += fmt::format(" sigmoid scale={:.9g}", c.mixture.routing.scale);
    if (c.mixture.shared_size > 0)
      text +=
          fmt::format(" shared_size={} weighed={}", c.mixture.shared_size, c.mixture.weighs_shared);
  }
  if (const GatedUnit& unit = c.mixture.unit; !unit.is_swiglu())
    text += fmt::format(" unit={:.9g} {:.9g} {:.9g}", unit.slope, unit.shift, unit.limit);
  if (c.widest_window() > 0) {
    text += " windows=";
    for (const LayerConfig& layer : c.layers)
      text += layer.has_window() ? fmt::format("{},", layer.window) : "-,";
  }
  if (c.fp8.scales == Fp8Config::Scales::made) {
    text += " fp8=made 1";  // the rule's version
  } else if (c.fp8.scales != Fp8Config::Scales::none) {
    text += fmt::format(" fp8={} {}x{} {}", static_cast<int>(c.fp8.scales), c.fp8.block_rows,
                        c.fp8.block_cols, c.fp8.suffix);
  }
  if (c.fp8.rounds_rows) text += " activations=fp8 1";  // the rule's version
  return text;
}

}  // namespace starattn
