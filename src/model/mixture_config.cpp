// SPDX-License-Identifier: Apache-2.0
#include "model/mixture_config.h"

#include <algorithm>

#include "base/error.h"
#include "model/positive_number.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxExpertSize = std::int64_t{1} << 20;
constexpr std::int64_t kMostShared = 64;
constexpr std::int64_t kMaxStep = std::int64_t{1} << 20;

// Every step-th layer, but for those that are listed as dense.
std::vector<bool> read_layers(const JsonObject& json, std::int64_t n_layers) {
  const std::int64_t step = json.find_int("decoder_sparse_step", 1, kMaxStep).value_or(1);
  std::vector<bool> layers;
  for (std::int64_t i = 0; i < n_layers; ++i) layers.push_back((i + 1) % step == 0);
  const char* key = "mlp_only_layers";
  if (!json.has(key)) return layers;
  const Json& dense = json.get(key);
  const bool is_list = dense.is_array();
  for (const Json& layer : is_list ? dense : Json::array({dense})) {
    if (!is_list || !layer.is_number_unsigned() ||
        layer.get<std::uint64_t>() >= static_cast<std::uint64_t>(n_layers)) {
      fail(Exit::bad_data,
           "{}: key '{}': expected a list of layers below num_hidden_layers = {}, got {}",
           json.where(), key, n_layers, to_line(dense).substr(0, 80));
    }
    layers[layer.get<std::size_t>()] = false;
  }
  return layers;
}

// GptOssForCausalLM: every layer is a mixture.
void read_biased_mixture(const JsonObject& json, ModelConfig& config) {
  MixtureConfig& mixture = config.mixture;
  const char* count = json.has("num_local_experts") ? "num_local_experts" : "num_experts";
  mixture.n_experts = json.find_int(count, 1, Backend::kMostExperts).value_or(128);
  const char* chosen =
      json.has("num_experts_per_tok") ? "num_experts_per_tok" : "experts_per_token";
  mixture.n_chosen = json.find_int(chosen, 1, mixture.n_experts)
                         .value_or(std::min<std::int64_t>(4, mixture.n_experts));
  mixture.expert_size = config.intermediate_size;
  mixture.routing.renormalise = true;  // the softmax over those that are chosen
  mixture.has_biases = true;
  mixture.unit = {.slope = static_cast<float>(read_positive_number(json, "swiglu_alpha", 1.702)),
                  .shift = 1,
                  .limit = static_cast<float>(read_positive_number(json, "swiglu_limit", 7))};
  for (LayerConfig& layer : config.layers) layer.is_mixture = true;
}

// MixtralForCausalLM and MiniMaxM2ForCausalLM: every layer is a mixture.
void read_plain_mixture(const JsonObject& json, ModelConfig& config) {
  const bool is_minimax = config.family == Family::minimax_m2;
  MixtureConfig& mixture = config.mixture;
  const char* count = json.has("num_local_experts") ? "num_local_experts" : "num_experts";
  mixture.n_experts = json.find_int(count, 1, Backend::kMostExperts).value_or(is_minimax ? 256 : 8);
  mixture.n_chosen = json.find_int("num_experts_per_tok", 1, mixture.n_experts)
                         .value_or(std::min<std::int64_t>(is_minimax ? 8 : 2, mixture.n_experts));
  mixture.expert_size = config.intermediate_size;
  mixture.routing = {.is_sigmoid = is_minimax, .renormalise = true};
  for (LayerConfig& layer : config.layers) layer.is_mixture = true;
}

// Qwen2MoeForCausalLM, Qwen3MoeForCausalLM and Qwen3-VL's: some layers are mixtures.
void read_qwen_mixture(const JsonObject& json, ModelConfig& config) {
  const bool is_qwen2 = config.family == Family::qwen2_moe;
  const bool is_vl = config.family == Family::qwen3_vl_moe;
  MixtureConfig mixture;
  // transformers 5 may write the first name, which other families have, too.
  const bool is_local = !is_qwen2 && json.has("num_local_experts");
  const char* count = is_local ? "num_local_experts" : "num_experts";
  mixture.n_experts =
      json.find_int(count, 0, Backend::kMostExperts).value_or(is_qwen2 || is_vl ? 60 : 128);
  const std::vector<bool> layers = read_layers(json, config.n_layers);
  if (mixture.n_experts == 0 || !std::ranges::count(layers, true)) return;
  mixture.n_chosen =
      json.find_int("num_experts_per_tok", 1, mixture.n_experts)
          .value_or(std::min<std::int64_t>(is_qwen2 || is_vl ? 4 : 8, mixture.n_experts));
  mixture.expert_size = json.find_int("moe_intermediate_size", 1, kMaxExpertSize)
                            .value_or(is_qwen2 || is_vl ? 1408 : 768);
  mixture.routing.renormalise = is_vl || json.find_bool("norm_topk_prob").value_or(false);
  if (is_qwen2) {
    mixture.shared_size =
        json.find_int("shared_expert_intermediate_size", 1, kMaxExpertSize).value_or(5632);
    mixture.weighs_shared = true;
  }
  config.mixture = mixture;
  for (std::size_t i = 0; i < layers.size(); ++i) config.layers[i].is_mixture = layers[i];
}

// Routers that leave some groups of experts out, as DeepSeek's do, are not supported.
void refuse_groups(const JsonObject& json) {
  const std::int64_t n_groups = json.find_int("n_group", 1, Backend::kMostExperts).value_or(1);
  const std::int64_t n_taken = json.find_int("topk_group", 1, Backend::kMostExperts).value_or(1);
  if (n_taken >= n_groups) return;
  fail(Exit::bad_data,
       "{}: key 'topk_group': a router that chooses {} of {} groups of experts is not supported: "
       "expected all of n_group",
       json.where(), n_taken, n_groups);
}

// Glm4MoeForCausalLM: all layers but the first ones are mixtures.
void read_glm_mixture(const JsonObject& json, ModelConfig& config) {
  refuse_groups(json);
  MixtureConfig& mixture = config.mixture;
  const std::int64_t n_dense = json.find_int("first_k_dense_replace", 0, kMaxStep).value_or(1);
  if (n_dense >= config.n_layers) return;
  mixture.n_experts = json.find_int("n_routed_experts", 1, Backend::kMostExperts).value_or(128);
  mixture.n_chosen = json.find_int("num_experts_per_tok", 1, mixture.n_experts)
                         .value_or(std::min<std::int64_t>(8, mixture.n_experts));
  mixture.expert_size = json.find_int("moe_intermediate_size", 1, kMaxExpertSize).value_or(1408);
  mixture.shared_size =
      mixture.expert_size * json.find_int("n_shared_experts", 0, kMostShared).value_or(1);
  mixture.routing = {
      .is_sigmoid = true,
      .renormalise = json.find_bool("norm_topk_prob").value_or(true),
      .scale = static_cast<float>(read_positive_number(json, "routed_scaling_factor", 1))};
  for (std::int64_t i = n_dense; i < config.n_layers; ++i)
    config.layers[static_cast<std::size_t>(i)].is_mixture = true;
}

}  // namespace

bool has_mxfp4_experts(const JsonObject& json) {
  if (!json.has("quantization_config")) return false;
  const JsonObject quantised = json.get_object("quantization_config");
  return quantised.find_string("quant_method").value_or("") == "mxfp4";
}

void read_mixture(const JsonObject& json, ModelConfig& config) {
  switch (config.family) {
    case Family::qwen2_moe:
    case Family::qwen3_moe:
    case Family::qwen3_vl_moe:
      return read_qwen_mixture(json, config);
    case Family::gpt_oss:
      return read_biased_mixture(json, config);
    case Family::mixtral:
    case Family::minimax_m2:
      return read_plain_mixture(json, config);
    case Family::glm4_moe:
      return read_glm_mixture(json, config);
    default:
      return;  // the others have none
  }
}

}  // namespace starattn
