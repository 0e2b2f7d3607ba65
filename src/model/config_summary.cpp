// SPDX-License-Identifier: Apache-2.0
// A model in a line, and its size.

#include "base/error.h"
#include "base/text.h"
#include "model/config.h"

namespace starattn {
namespace {

const char* name_of(Family family) {
  switch (family) {
    case Family::llama:
      return "Llama";
    case Family::qwen2:
      return "Qwen2";
    case Family::qwen3:
      return "Qwen3";
    case Family::mistral:
      return "Mistral";
    case Family::qwen3_moe:
      return "Qwen3-MoE";
    case Family::granite:
      return "Granite";
    case Family::seed_oss:
      return "Seed-OSS";
    case Family::gpt_oss:
      return "GPT-OSS";
    case Family::phi3:
      return "Phi-3";
    case Family::ministral3:
      return "Ministral 3";
    case Family::qwen3_vl:
      return "Qwen3-VL";
    case Family::qwen3_vl_moe:
      return "Qwen3-VL-MoE";
    case Family::smollm3:
      return "SmolLM3";
    case Family::mixtral:
      return "Mixtral";
    case Family::olmo2:
      return "Olmo 2";
    case Family::olmo3:
      return "Olmo 3";
    case Family::qwen2_moe:
      return "Qwen2-MoE";
    case Family::glm4_moe:
      return "GLM-4.5";
    case Family::minimax_m2:
      return "MiniMax-M2";
  }
  return "";
}

std::string describe(const RopeConfig& rope) {
  std::string theta = fmt::format("RoPE {:.10g}", rope.theta);
  switch (rope.kind) {
    case RopeKind::standard:
      return theta;
    case RopeKind::linear:
      return fmt::format("{} (linear x{:g})", theta, rope.factor);
    case RopeKind::llama3:
      return fmt::format("{} (llama3 x{:g})", theta, rope.factor);
    case RopeKind::yarn:
      return fmt::format("{} (yarn x{:g})", theta, rope.factor);
    case RopeKind::longrope:
      return fmt::format("{} (longrope x{:g})", theta, rope.factor);
    case RopeKind::none:
      return "no RoPE";
  }
  return theta;
}

// Of all layers.
std::string describe_ropes(const ModelConfig& c) {
  std::string text = describe(c.rope);
  if (c.rope.rotary > 0) text += fmt::format(" of {} values a head", c.rope.rotary);
  if (c.n_with_other_rope() > 0)
    text += fmt::format(" ({} in {} of {} layers)", describe(c.other_rope), c.n_with_other_rope(),
                        c.n_layers);
  return text;
}

// 10.2M, 8.0B
std::string short_count(std::uint64_t n) {
  const auto number = static_cast<double>(n);
  return n < 999'950'000 ? fmt::format("{:.1f}M", number * 1e-6)
                         : fmt::format("{:.1f}B", number * 1e-9);
}

std::uint64_t u(std::int64_t n) {
  return static_cast<std::uint64_t>(n);
}

// With so many experts in each mixture.
std::uint64_t n_parameters(const ModelConfig& c, std::int64_t n_experts) {
  const std::uint64_t hidden = u(c.hidden_size), intermediate = u(c.intermediate_size);
  const std::uint64_t q = u(c.q_width()), kv = u(c.kv_width());
  std::uint64_t layer = hidden * (2 * q + 2 * kv + 2);  // q k v o, norms
  if (c.qkv_bias) layer += q + 2 * kv;
  if (c.o_bias) layer += hidden;
  if (c.qk_norm) layer += c.norms_all_heads ? q + kv : 2 * u(c.head_dim);
  if (c.has_sinks) layer += u(c.n_heads);
  std::uint64_t dense = 3 * hidden * intermediate;
  if (c.mlp_bias) dense += 2 * intermediate + hidden;
  std::uint64_t mixture =
      hidden * u(c.mixture.n_experts + 3 * c.mixture.shared_size);  // beside the experts' matrices
  if (c.mixture.weighs_shared) mixture += hidden;
  if (c.mixture.routing.is_sigmoid) mixture += u(c.mixture.n_experts);
  if (c.mixture.has_biases)
    mixture += u(c.mixture.n_experts) + u(n_experts) * (2 * u(c.mixture.expert_size) + hidden);
  const std::uint64_t n_mixtures = u(c.n_mixtures());
  const std::uint64_t embeddings = u(c.vocab_size) * hidden * (c.tied_embeddings ? 1 : 2);
  return embeddings + u(c.n_layers) * layer + (u(c.n_layers) - n_mixtures) * dense +
         n_mixtures * mixture + n_expert_parameters(c, n_experts) + hidden;
}

const char* describe(const Fp8Config& fp8) {
  if (fp8.scales == Fp8Config::Scales::none) return "";
  return fp8.rounds_rows ? " in FP8 (and activations of phase 1)" : " in FP8";
}

}  // namespace

std::uint64_t n_expert_parameters(const ModelConfig& c, std::int64_t n_experts) {
  return u(c.n_mixtures()) * 3 * u(n_experts) * u(c.mixture.expert_size) * u(c.hidden_size);
}

std::uint64_t n_parameters(const ModelConfig& c) {
  return n_parameters(c, c.mixture.n_experts);
}

std::uint64_t n_parameters_of_a_row(const ModelConfig& c) {
  return n_parameters(c, c.mixture.n_chosen);
}

std::string describe(const ModelConfig& c) {
  const std::string experts =
      c.mixture.n_experts == 0
          ? ""
          : fmt::format(" ({} a token: {} of {} experts)", short_count(n_parameters_of_a_row(c)),
                        c.mixture.n_chosen, c.mixture.n_experts);
  const std::string windows = c.n_windows() == 0
                                  ? ""
                                  : fmt::format(" ({} with windows of {} tokens)", c.n_windows(),
                                                with_commas(c.widest_window()));
  return fmt::format(
      "{}, {} parameters{}{}, {} layers{}, hidden {}, {} heads / {} KV heads, head dim {}, "
      "vocabulary "
      "{}, {}, {} positions",
      name_of(c.family), short_count(n_parameters(c)), experts, describe(c.fp8), c.n_layers,
      windows, c.hidden_size, c.n_heads, c.n_kv_heads, c.head_dim, with_commas(c.vocab_size),
      describe_ropes(c), with_commas(c.max_positions));
}

}  // namespace starattn
