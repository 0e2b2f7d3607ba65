// SPDX-License-Identifier: Apache-2.0
// A config.json to change, and its way through a folder.
#pragma once

#include "../temporary_folder.h"
#include "base/json.h"
#include "model/config.h"

namespace starattn {

inline const std::string kGoldenModels = STARATTN_SOURCE_DIR "/tests/golden/models/";
inline const char* const kGoldenNames[] = {
    "llama31",    "llama2_linear",  "llama_yarn_bias", "qwen2",          "qwen3",   "mistral",
    "qwen3_moe",  "qwen3_moe_step", "granite",         "seed_oss",       "phi3",    "mistral3",
    "ministral3", "qwen3_vl",       "smollm3",         "smollm3_window", "mixtral", "olmo2",
    "olmo3",      "qwen2_moe",      "glm4_moe",        "minimax_m2"};

// A Llama with these members added or replaced.
inline Json small_config(const Json& changes = Json::object()) {
  Json config = Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 4096})");
  config.update(changes);
  return config;
}

inline ModelConfig read_config(const Json& config) {
  const TemporaryFolder folder;
  folder.write("config.json", to_line(config));
  return read_model_config(folder.path());
}

// One of another family.
inline Json family_config(const char* type, const char* architecture, Json changes) {
  changes["model_type"] = type;
  changes["architectures"] = {architecture};
  return small_config(changes);
}

// Of each layer; 0: none.
inline std::vector<std::int64_t> windows_of(const ModelConfig& config) {
  std::vector<std::int64_t> windows;
  for (const LayerConfig& layer : config.layers)
    windows.push_back(layer.has_window() ? layer.window : 0);
  return windows;
}

}  // namespace starattn
