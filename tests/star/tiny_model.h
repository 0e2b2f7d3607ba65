// SPDX-License-Identifier: Apache-2.0
// A tiny random Llama-shaped model and a document, for tests of the two phases.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "../backend/late_backend.h"
#include "backend/backend.h"
#include "model/decoder.h"
#include "star/answer.h"

namespace starattn::testing {

// STARATTN_TEST_DEVICE=cuda runs the same tests on the GPU, with the head dim that its kernels
// take; =late on a CPU backend whose copies complete late.
inline bool is_test_device(const char* name) {
  const char* device = std::getenv("STARATTN_TEST_DEVICE");
  return device && std::string(device) == name;
}
inline bool on_gpu() {
  return is_test_device("cuda");
}

inline std::unique_ptr<Backend> test_backend(int n_threads) {
  if (on_gpu()) {  // the ranks of a node on its GPUs in turn
    const char* rank = std::getenv("OMPI_COMM_WORLD_LOCAL_RANK");
    return make_cuda_backend((rank ? std::atoi(rank) : 0) % n_cuda_devices());
  }
  if (is_test_device("late")) return std::make_unique<LateBackend>(make_cpu_backend(n_threads));
  return make_cpu_backend(n_threads);
}

inline ModelConfig tiny_config() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 96;
  config.hidden_size = 48;
  config.intermediate_size = 80;
  config.n_layers = 3;
  config.n_heads = 6;
  config.n_kv_heads = 2;
  config.head_dim = on_gpu() ? 64 : 16;
  config.max_positions = 1 << 20;
  return config;
}

// Two layers of three are mixtures of experts.
inline ModelConfig tiny_mixture_config() {
  ModelConfig config = tiny_config();
  config.mixture = {
      .n_experts = 7, .n_chosen = 3, .expert_size = 40, .routing = {.renormalise = true}};
  config.layers = {{.is_mixture = true}, {}, {.is_mixture = true}};
  return config;
}

// The same, and an expert that every row takes: by Qwen2-MoE's rules, or with sigmoids by GLM's.
inline ModelConfig tiny_shared_expert_config(bool is_sigmoid) {
  ModelConfig config = tiny_mixture_config();
  config.mixture.shared_size = is_sigmoid ? 56 : 104;  // and wider than a dense layer
  config.mixture.weighs_shared = !is_sigmoid;
  config.mixture.routing = {.is_sigmoid = is_sigmoid, .renormalise = is_sigmoid, .scale = 1.5F};
  return config;
}

// Every row of GPT-OSS's kind of layers: sinks, experts with biases, and windows in two of three.
inline ModelConfig tiny_sinks_config(std::int64_t window) {
  ModelConfig config = tiny_config();
  config.mixture = {.n_experts = 7,
                    .n_chosen = 3,
                    .expert_size = 40,
                    .routing = {.renormalise = true},
                    .has_biases = true,
                    .unit = {1.702F, 1, 1}};
  config.has_sinks = config.qkv_bias = config.o_bias = true;
  config.layers = {{.window = window, .is_mixture = true},
                   {.is_mixture = true},
                   {.window = window, .is_mixture = true}};
  return config;
}

// With --weights fp8 and all numbers made, if the config says so.
inline ModelWeights tiny_weights(const ModelConfig& config, Dtype dtype) {
  ModelWeights weights = ModelWeights::random(config, dtype, 7);
  if (config.fp8.scales != Fp8Config::Scales::made) return weights;
  weights.make_fp8();
  for (const WeightView& weight : weights.all())
    if (weights.is_made(weight)) weights.fill(weight);
  return weights;
}

struct TinyModel {
  explicit TinyModel(int n_threads = 1, Dtype dtype = Dtype::bf16,
                     const ModelConfig& of = tiny_config())
      : config(of),
        weights(tiny_weights(config, dtype)),
        backend(test_backend(n_threads)),
        decoder(config, weights, *backend, std::max(backend->chunk_rows(), Answerer::kMaxRows)) {}

  ModelConfig config;
  ModelWeights weights;
  std::unique_ptr<Backend> backend;
  Decoder decoder;
};

inline std::vector<Token> random_tokens(std::int64_t n, std::uint64_t seed) {
  std::vector<Token> tokens;
  for (std::int64_t i = 0; i < n; ++i) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    tokens.push_back(static_cast<Token>((seed >> 33) % 96));
  }
  return tokens;
}

}  // namespace starattn::testing
