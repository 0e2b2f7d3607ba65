// SPDX-License-Identifier: Apache-2.0
#include "model/shapes.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {
namespace {

struct Shape {
  const char* name;
  std::int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary;
  bool tied = false;  // the embedding is the head, too
  Family family = Family::llama;
  MixtureConfig mixture = {};  // of all layers
  std::size_t n_dense = 0;     // but for the first ones
};

const MixtureConfig kQwen3Mixture = {
    .n_experts = 128, .n_chosen = 8, .expert_size = 768, .routing = {.renormalise = true}};

MixtureConfig gpt_oss_mixture(std::int64_t n_experts) {
  return {.n_experts = n_experts,
          .n_chosen = 4,
          .expert_size = 2880,
          .routing = {.renormalise = true},
          .has_biases = true,
          .unit = {1.702F, 1, 7}};
}

const MixtureConfig kGlmAirMixture = {.n_experts = 128,
                                      .n_chosen = 8,
                                      .expert_size = 1408,
                                      .routing = {.is_sigmoid = true, .renormalise = true},
                                      .shared_size = 1408};

const MixtureConfig kMiniMaxMixture = {.n_experts = 256,
                                       .n_chosen = 8,
                                       .expert_size = 1536,
                                       .routing = {.is_sigmoid = true, .renormalise = true}};

// The short names are older than the others and not quite their models: embeddings are tied and
// vocabularies rounded.
const Shape kShapes[] = {
    {"10m", 384, 1024, 6, 6, 2, 64, 32000, true},
    {"150m", 1024, 2816, 12, 16, 4, 64, 32000, true},
    {"1b", 2048, 8192, 16, 32, 8, 64, 32000, true},
    {"8b", 4096, 14336, 32, 32, 8, 128, 128256, true},
    {"70b", 8192, 28672, 80, 64, 8, 128, 128256},
    {"30b-a3b", 2048, 6144, 48, 32, 4, 128, 151936, false, Family::qwen3_moe, kQwen3Mixture},
    {"llama-3.2-1b", 2048, 8192, 16, 32, 8, 64, 128256, true},
    {"llama-3.2-3b", 3072, 8192, 28, 24, 8, 128, 128256, true},
    {"llama-3.1-8b", 4096, 14336, 32, 32, 8, 128, 128256},
    {"llama-3.1-70b", 8192, 28672, 80, 64, 8, 128, 128256},
    {"mistral-7b-v0.3", 4096, 14336, 32, 32, 8, 128, 32768, false, Family::mistral},
    {"qwen2.5-7b", 3584, 18944, 28, 28, 4, 128, 152064, false, Family::qwen2},
    {"qwen3-0.6b", 1024, 3072, 28, 16, 8, 128, 151936, true, Family::qwen3},
    {"qwen3-4b", 2560, 9728, 36, 32, 8, 128, 151936, true, Family::qwen3},
    {"qwen3-8b", 4096, 12288, 36, 32, 8, 128, 151936, false, Family::qwen3},
    {"qwen3-14b", 5120, 17408, 40, 40, 8, 128, 151936, false, Family::qwen3},
    {"qwen3-32b", 5120, 25600, 64, 64, 8, 128, 151936, false, Family::qwen3},
    {"qwen3-30b-a3b", 2048, 6144, 48, 32, 4, 128, 151936, false, Family::qwen3_moe, kQwen3Mixture},
    {"glm-4.5-air", 4096, 10944, 46, 96, 8, 128, 151552, false, Family::glm4_moe, kGlmAirMixture,
     1},
    {"minimax-m2", 3072, 1536, 62, 48, 8, 128, 200064, false, Family::minimax_m2, kMiniMaxMixture},
    {"gpt-oss-20b", 2880, 2880, 24, 64, 8, 64, 201088, false, Family::gpt_oss, gpt_oss_mixture(32)},
    {"gpt-oss-120b", 2880, 2880, 36, 64, 8, 64, 201088, false, Family::gpt_oss,
     gpt_oss_mixture(128)},
};

const char* architecture_of(Family family) {
  switch (family) {
    case Family::qwen2:
      return "Qwen2ForCausalLM";
    case Family::qwen3:
      return "Qwen3ForCausalLM";
    case Family::qwen3_moe:
      return "Qwen3MoeForCausalLM";
    case Family::mistral:
      return "MistralForCausalLM";
    case Family::gpt_oss:
      return "GptOssForCausalLM";
    case Family::glm4_moe:
      return "Glm4MoeForCausalLM";
    case Family::minimax_m2:
      return "MiniMaxM2ForCausalLM";
    default:
      return "LlamaForCausalLM";
  }
}

}  // namespace

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

ModelConfig model_shape(const std::string& name, std::int64_t n_layers) {
  const Shape* shape = std::ranges::find(kShapes, name, &Shape::name);
  STARATTN_CHECK(shape != std::end(kShapes));
  ModelConfig config;
  config.family = shape->family;
  config.architecture = architecture_of(shape->family);
  config.vocab_size = shape->vocabulary;
  config.hidden_size = shape->hidden;
  config.intermediate_size = shape->intermediate;
  config.n_layers = n_layers > 0 ? n_layers : shape->layers;
  config.n_heads = shape->heads;
  config.n_kv_heads = shape->kv_heads;
  config.head_dim = shape->head_dim;
  config.max_positions = std::int64_t{1} << 24;
  config.rope.theta = 500000;
  config.tied_embeddings = shape->tied;
  config.qkv_bias = shape->family == Family::qwen2 || shape->family == Family::glm4_moe;
  config.norms_all_heads = shape->family == Family::minimax_m2;
  config.qk_norm = shape->family == Family::qwen3 || shape->family == Family::qwen3_moe ||
                   config.norms_all_heads;
  config.mixture = shape->mixture;
  config.layers.assign(static_cast<std::size_t>(config.n_layers),
                       {.is_mixture = config.mixture.n_experts > 0});
  for (std::size_t i = 0; i < std::min(shape->n_dense, config.layers.size()); ++i)
    config.layers[i].is_mixture = false;
  if (shape->family == Family::glm4_moe || shape->family == Family::minimax_m2)
    config.rope.rotary = config.head_dim / 2;
  if (shape->family == Family::gpt_oss) {
    config.has_sinks = config.qkv_bias = config.o_bias = true;
    for (std::size_t i = 0; i < config.layers.size(); i += 2) config.layers[i].window = 128;
  }
  return config;
}

}  // namespace starattn
