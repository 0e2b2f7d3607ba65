// SPDX-License-Identifier: Apache-2.0
#include "model/mixture_config.h"

#include <algorithm>

#include "base/error.h"
#include "model/positive_number.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxExpertSize = std::int64_t{1} << 20;
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
  mixture.renormalise = true;  // the softmax over those that are chosen
  mixture.has_biases = true;
  mixture.unit = {.slope = static_cast<float>(read_positive_number(json, "swiglu_alpha", 1.702)),
                  .shift = 1,
                  .limit = static_cast<float>(read_positive_number(json, "swiglu_limit", 7))};
  for (LayerConfig& layer : config.layers) layer.is_mixture = true;
}

// MixtralForCausalLM: every layer is a mixture.
void read_plain_mixture(const JsonObject& json, ModelConfig& config) {
  MixtureConfig& mixture = config.mixture;
  const char* count = json.has("num_local_experts") ? "num_local_experts" : "num_experts";
  mixture.n_experts = json.find_int(count, 1, Backend::kMostExperts).value_or(8);
  mixture.n_chosen = json.find_int("num_experts_per_tok", 1, mixture.n_experts)
                         .value_or(std::min<std::int64_t>(2, mixture.n_experts));
  mixture.expert_size = config.intermediate_size;
  mixture.renormalise = true;
  for (LayerConfig& layer : config.layers) layer.is_mixture = true;
}

}  // namespace

bool has_mxfp4_experts(const JsonObject& json) {
  if (!json.has("quantization_config")) return false;
  const JsonObject quantised = json.get_object("quantization_config");
  return quantised.find_string("quant_method").value_or("") == "mxfp4";
}

void read_mixture(const JsonObject& json, ModelConfig& config) {
  if (config.family == Family::gpt_oss) return read_biased_mixture(json, config);
  if (config.family == Family::mixtral) return read_plain_mixture(json, config);
  const bool is_vl = config.family == Family::qwen3_vl_moe;
  MixtureConfig mixture;
  // transformers 5 may write the first name, which other families have, too.
  const char* count = json.has("num_local_experts") ? "num_local_experts" : "num_experts";
  mixture.n_experts = json.find_int(count, 0, Backend::kMostExperts).value_or(is_vl ? 60 : 128);
  const std::vector<bool> layers = read_layers(json, config.n_layers);
  if (mixture.n_experts == 0 || !std::ranges::count(layers, true)) return;
  mixture.n_chosen = json.find_int("num_experts_per_tok", 1, mixture.n_experts)
                         .value_or(std::min<std::int64_t>(is_vl ? 4 : 8, mixture.n_experts));
  mixture.expert_size =
      json.find_int("moe_intermediate_size", 1, kMaxExpertSize).value_or(is_vl ? 1408 : 768);
  mixture.renormalise = is_vl || json.find_bool("norm_topk_prob").value_or(false);
  config.mixture = mixture;
  for (std::size_t i = 0; i < layers.size(); ++i) config.layers[i].is_mixture = layers[i];
}

}  // namespace starattn
