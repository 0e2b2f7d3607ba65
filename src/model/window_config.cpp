// SPDX-License-Identifier: Apache-2.0
#include "model/window_config.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/error.h"

namespace starattn {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 32;
constexpr std::int64_t kMostLayers = 1024;
constexpr std::int64_t kDefaultWindow = 4096, kShortWindow = 128;
constexpr std::int64_t kDefaultWindowLayers = 28;

// Which layers slide where the family has windows and the file says nothing of single layers.
std::vector<bool> sliding_layers(const JsonObject& json, const ModelConfig& config) {
  std::vector<bool> layers(static_cast<std::size_t>(config.n_layers), false);
  std::int64_t first = config.n_layers;
  switch (config.family) {
    case Family::llama:
    case Family::granite:
    case Family::seed_oss:
    case Family::olmo2:
    case Family::qwen3_vl:
    case Family::qwen3_vl_moe:
    case Family::glm4_moe:
    case Family::minimax_m2:
      break;
    case Family::mistral:
    case Family::ministral3:
    case Family::phi3:
    case Family::mixtral:
      first = 0;
      break;
    case Family::gpt_oss:
      for (std::size_t i = 0; i < layers.size(); i += 2) layers[i] = true;
      break;
    case Family::olmo3:
      for (std::size_t i = 0; i < layers.size(); ++i) layers[i] = (i + 1) % 4 != 0;
      break;
    case Family::qwen3_moe:
      if (json.find_bool("use_sliding_window").value_or(false)) first = 0;
      break;
    case Family::smollm3:
      if (json.find_bool("use_sliding_window").value_or(false))
        for (std::size_t i = 0; i < layers.size(); ++i) layers[i] = config.layers[i].has_other_rope;
      break;
    case Family::qwen2_moe:
      if (json.find_bool("use_sliding_window").value_or(false)) {
        const std::int64_t end =
            json.find_int("max_window_layers", 0, kMostLayers).value_or(kDefaultWindowLayers);
        for (std::size_t i = 0; i < layers.size(); i += 2)
          layers[i] = static_cast<std::int64_t>(i) < end;
      }
      break;
    case Family::qwen2:
    case Family::qwen3:
      if (json.find_bool("use_sliding_window").value_or(false))
        first = json.find_int("max_window_layers", 0, kMostLayers).value_or(kDefaultWindowLayers);
      break;
  }
  for (std::int64_t i = first; i < config.n_layers; ++i) layers[static_cast<std::size_t>(i)] = true;
  return layers;
}

// layer_types, as which layers slide.
std::optional<std::vector<bool>> read_layer_types(const JsonObject& json, std::int64_t n_layers) {
  const char* key = "layer_types";
  if (!json.has(key)) return std::nullopt;
  const Json& types = json.get(key);
  if (!types.is_array()) {
    fail(Exit::bad_data, "{}: key '{}': expected a list, got {}", json.where(), key,
         types.type_name());
  }
  std::vector<bool> slides;
  for (const Json& type : types) {
    if (type != "full_attention" && type != "sliding_attention") {
      fail(Exit::bad_data,
           "{}: key '{}': {} is not supported: expected full_attention or sliding_attention",
           json.where(), key, to_line(type).substr(0, 80));
    }
    slides.push_back(type == "sliding_attention");
  }
  if (std::ssize(slides) != n_layers) {
    fail(Exit::bad_data, "{}: key '{}': expected num_hidden_layers = {} names, got {}",
         json.where(), key, n_layers, slides.size());
  }
  return slides;
}

}  // namespace

bool reads_layer_types(const JsonObject& json, const ModelConfig& config) {
  if (config.family == Family::gpt_oss || config.family == Family::olmo3) return true;
  return (config.family == Family::qwen2 || config.family == Family::qwen2_moe ||
          config.family == Family::qwen3 || config.family == Family::smollm3) &&
         json.find_bool("use_sliding_window").value_or(false);
}

std::vector<bool> read_windows(const JsonObject& json, ModelConfig& config) {
  std::optional<std::int64_t> window = json.find_int("sliding_window", 0, kMostTokens);
  const bool is_absent = !json.json().contains("sliding_window");  // null says something
  const bool has_default = config.family != Family::phi3 && config.family != Family::ministral3 &&
                           config.family != Family::smollm3 && config.family != Family::mixtral;
  if (has_default && is_absent)
    window = config.family == Family::gpt_oss ? kShortWindow : kDefaultWindow;

  std::vector<bool> slides = sliding_layers(json, config);
  if (const auto types = read_layer_types(json, config.n_layers)) {
    if (reads_layer_types(json, config)) {
      slides = *types;
    } else if (const bool has_some = std::ranges::count(*types, true) > 0;
               has_some && (!window || *types != slides)) {
      fail(Exit::bad_data,
           "{}: key 'layer_types': sliding_attention is not supported in these layers of '{}': its "
           "layers are all alike",
           json.where(), config.architecture);
    }
  }
  const bool any_slides = std::ranges::count(slides, true) > 0;
  const bool is_named =
      json.has("layer_types") || config.family == Family::gpt_oss || config.family == Family::olmo3;
  if (!window && any_slides && is_named && reads_layer_types(json, config))
    json.get("sliding_window");  // says that it is missing
  if (!window || !any_slides) return slides;
  if (*window < 1) {
    fail(Exit::bad_data, "{}: key 'sliding_window': expected at least 1 token, got {}",
         json.where(), *window);
  }
  if (*window >= config.max_positions) {
    config.sliding_window = *window;
    return slides;
  }
  for (std::size_t i = 0; i < slides.size(); ++i)
    if (slides[i]) config.layers[i].window = *window;
  return slides;
}

}  // namespace starattn
