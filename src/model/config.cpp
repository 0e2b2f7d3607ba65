// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "model/config_file.h"
#include "model/fp8_config.h"
#include "model/mixture_config.h"
#include "model/model_folder.h"
#include "model/positive_number.h"
#include "model/rope_config.h"
#include "model/window_config.h"

namespace starattn {
namespace {

// Limits, wide for any known model, that keep every product of sizes far from 2^63.
constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 24;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;  // hidden and intermediate
constexpr std::int64_t kMaxLayers = 1024;
constexpr std::int64_t kMaxHeads = 4096;
constexpr std::int64_t kMaxHeadDim = 256;
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 32;

// What an absent key means differs between families; these are transformers' meanings.
struct FamilyDefaults {
  Family family;
  const char* architecture;
  const char* model_type;
  std::int64_t max_positions;
  std::int64_t n_kv_heads;  // 0: as many as heads, which null means everywhere
  std::int64_t head_dim;    // 0: hidden_size / n_heads, which null means everywhere
  Token bos, eos;           // -1: none, which null means everywhere
  // The model_type of its text_config, where the architecture reads pictures as well: all that is
  // said of the text stands in there.
  const char* text_type = nullptr;
  double rope_theta = 10000;
  bool tied = false;  // the embedding is the LM head, too
};
constexpr FamilyDefaults kFamilies[] = {
    {Family::llama, "LlamaForCausalLM", "llama", 2048, 0, 0, 1, 2},
    {Family::qwen2, "Qwen2ForCausalLM", "qwen2", 32768, 32, 0, -1, -1},
    {Family::qwen3, "Qwen3ForCausalLM", "qwen3", 32768, 32, 128, -1, -1},
    {Family::mistral, "MistralForCausalLM", "mistral", 131072, 8, 0, 1, 2},
    {Family::qwen3_moe, "Qwen3MoeForCausalLM", "qwen3_moe", 32768, 4, 0, -1, -1},
    {Family::qwen2_moe, "Qwen2MoeForCausalLM", "qwen2_moe", 32768, 16, 0, -1, -1},
    {Family::granite, "GraniteForCausalLM", "granite", 2048, 0, 0, 1, 2},
    {Family::seed_oss, "SeedOssForCausalLM", "seed_oss", 524288, 8, 128, 0, 2},
    {Family::phi3, "Phi3ForCausalLM", "phi3", 4096, 0, 0, 1, 32000},
    {Family::mistral, "Mistral3ForConditionalGeneration", "mistral3", 131072, 8, 0, 1, 2,
     "mistral"},
    {Family::ministral3, "Mistral3ForConditionalGeneration", "mistral3", 262144, 8, 128, 1, 2,
     "ministral3"},
    {Family::ministral3, "Ministral3ForCausalLM", "ministral3", 262144, 8, 128, 1, 2},
    {Family::gpt_oss, "GptOssForCausalLM", "gpt_oss", 131072, 8, 64, -1, -1, nullptr, 1.5e5},
    {Family::smollm3, "SmolLM3ForCausalLM", "smollm3", 32768, 4, 0, 128000, 128001, nullptr, 2e6,
     true},
    {Family::mixtral, "MixtralForCausalLM", "mixtral", 131072, 8, 0, 1, 2, nullptr, 1e6},
    {Family::glm4_moe, "Glm4MoeForCausalLM", "glm4_moe", 131072, 8, 0, -1, -1},
    {Family::minimax_m2, "MiniMaxM2ForCausalLM", "minimax_m2", 196608, 8, 128, 200034, 200020,
     nullptr, 5e6},
    {Family::olmo2, "Olmo2ForCausalLM", "olmo2", 2048, 0, 0, -1, 50279},
    {Family::olmo3, "Olmo3ForCausalLM", "olmo3", 2048, 0, 0, -1, 50279, nullptr, 5e5},
    {Family::qwen3_vl, "Qwen3VLForConditionalGeneration", "qwen3_vl", 128000, 32, 128, -1, -1,
     "qwen3_vl_text", 5e5},
    {Family::qwen3_vl_moe, "Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe", 128000, 16, 0, -1,
     -1, "qwen3_vl_moe_text", 5e5},
};

bool says_nothing_of(const JsonObject& json, const char* key) {
  return !json.json().contains(key);  // null says something
}

[[noreturn]] void refuse_family(const JsonObject& json, const char* key, const std::string& name) {
  std::string supported;
  for (const FamilyDefaults& known : kFamilies) {
    if (supported.find(known.architecture) != std::string::npos) continue;
    supported += fmt::format("{}{} ({})", supported.empty() ? "" : ", ", known.architecture,
                             known.model_type);
  }
  fail(Exit::bad_data, "{}: key '{}': '{}' is not supported; supported are {}", json.where(), key,
       name, supported);
}

const FamilyDefaults& read_family(const JsonObject& json) {
  const FamilyDefaults* by_architecture = nullptr;
  const FamilyDefaults* by_type = nullptr;
  if (json.has("architectures")) {
    const Json& names = json.get("architectures");
    if (!names.is_array() || names.size() != 1 || !names[0].is_string()) {
      fail(Exit::bad_data, "{}: key 'architectures': expected a list of one name, got {}",
           json.where(), to_line(names));
    }
    const auto name = names[0].get<std::string>();
    for (const FamilyDefaults& known : kFamilies) {
      if (name == known.architecture) by_architecture = &known;
    }
    if (!by_architecture) refuse_family(json, "architectures", name);
  }
  if (!by_architecture || json.has("model_type")) {
    const std::string type = json.get_string("model_type");
    for (const FamilyDefaults& known : kFamilies) {
      if (type == known.model_type) by_type = &known;
    }
    if (!by_type) refuse_family(json, "model_type", type);
  }
  if (by_architecture && by_type && by_architecture != by_type) {
    fail(Exit::bad_data, "{}: key 'model_type': '{}' does not go with architecture '{}'",
         json.where(), by_type->model_type, by_architecture->architecture);
  }
  return by_architecture ? *by_architecture : *by_type;
}

// The same architecture with the text part that the file has.
const FamilyDefaults& with_text_part(const FamilyDefaults& named, const JsonObject& json) {
  if (!named.text_type) return named;
  const JsonObject text = json.get_object("text_config");
  const std::string type = text.find_string("model_type").value_or(named.text_type);
  std::string supported;
  for (const FamilyDefaults& known : kFamilies) {
    if (known.architecture != std::string_view(named.architecture)) continue;
    if (type == known.text_type) return known;
    supported += fmt::format("{}{}", supported.empty() ? "" : " or ", known.text_type);
  }
  fail(Exit::bad_data, "{}: key 'model_type': '{}' is not supported: expected {}", text.where(),
       type, supported);
}

// Above 0; absent: `absent`.
void read_sizes(const JsonObject& json, const FamilyDefaults& family, ModelConfig& config) {
  const std::string& where = json.where();
  config.vocab_size = json.get_int("vocab_size", 1, kMaxVocabulary);
  config.hidden_size = json.get_int("hidden_size", 1, kMaxWidth);
  config.intermediate_size = json.get_int("intermediate_size", 1, kMaxWidth);
  config.n_layers = json.get_int("num_hidden_layers", 1, kMaxLayers);
  config.n_heads = json.get_int("num_attention_heads", 1, kMaxHeads);
  config.max_positions =
      json.find_int("max_position_embeddings", 1, kMaxPositions).value_or(family.max_positions);

  const bool as_many_as_heads =
      family.n_kv_heads == 0 || !says_nothing_of(json, "num_key_value_heads");
  config.n_kv_heads = json.find_int("num_key_value_heads", 1, kMaxHeads)
                          .value_or(as_many_as_heads ? config.n_heads : family.n_kv_heads);
  if (config.n_heads % config.n_kv_heads != 0) {
    fail(Exit::bad_data,
         "{}: key 'num_attention_heads': expected a multiple of num_key_value_heads = {}, got {}",
         where, config.n_kv_heads, config.n_heads);
  }

  const auto head_dim = json.find_int("head_dim", 2, kMaxHeadDim);
  const bool is_a_share = family.head_dim == 0 || !says_nothing_of(json, "head_dim");
  if (!head_dim && is_a_share && config.hidden_size % config.n_heads != 0) {
    fail(Exit::bad_data,
         "{}: key 'hidden_size': expected a multiple of num_attention_heads = {} (head_dim is "
         "absent), got {}",
         where, config.n_heads, config.hidden_size);
  }
  config.head_dim =
      head_dim.value_or(is_a_share ? config.hidden_size / config.n_heads : family.head_dim);
  if (config.head_dim < 2 || config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    fail(Exit::bad_data, "{}: head_dim: expected an even number from 2 to {}, got {}", where,
         kMaxHeadDim, config.head_dim);
  }
}

// The parts of a layer that only some families have.
void read_layer(const JsonObject& json, ModelConfig& config) {
  const bool is_larger = config.family == Family::phi3 || config.family == Family::ministral3 ||
                         config.family == Family::gpt_oss || config.family == Family::mixtral ||
                         config.family == Family::olmo2 || config.family == Family::olmo3 ||
                         config.family == Family::glm4_moe;
  config.rms_norm_eps = json.find_number("rms_norm_eps").value_or(is_larger ? 1e-5 : 1e-6);
  if (!(config.rms_norm_eps > 0 && config.rms_norm_eps < 1)) {
    fail(Exit::bad_data, "{}: key 'rms_norm_eps': expected a number between 0 and 1, got {}",
         json.where(), config.rms_norm_eps);
  }
  const bool attention_bias = json.find_bool("attention_bias").value_or(false);
  const bool mlp_bias = json.find_bool("mlp_bias").value_or(false);
  switch (config.family) {  // what the others say of biases, transformers ignores too
    case Family::llama:
    case Family::smollm3:
      config.qkv_bias = config.o_bias = attention_bias;
      config.mlp_bias = mlp_bias;
      break;
    case Family::qwen2:
      config.qkv_bias = true;
      break;
    case Family::qwen2_moe:
      config.qkv_bias = json.find_bool("qkv_bias").value_or(true);
      break;
    case Family::qwen3:
    case Family::qwen3_moe:
    case Family::qwen3_vl:
    case Family::qwen3_vl_moe:
      config.qkv_bias = config.o_bias = attention_bias;
      config.qk_norm = true;
      break;
    case Family::glm4_moe:
      config.qkv_bias = attention_bias;
      config.qk_norm = json.find_bool("use_qk_norm").value_or(false);
      config.n_guessing_layers =
          json.find_int("num_nextn_predict_layers", 0, kMaxLayers).value_or(1);
      break;
    case Family::granite:
      config.qkv_bias = config.o_bias = attention_bias;
      config.mlp_bias = mlp_bias;
      config.multipliers = {read_positive_number(json, "embedding_multiplier", 1),
                            read_positive_number(json, "residual_multiplier", 1),
                            read_positive_number(json, "attention_multiplier", 1),
                            1 / read_positive_number(json, "logits_scaling", 1)};
      break;
    case Family::seed_oss:
      config.qkv_bias = json.find_bool("attention_bias").value_or(true);
      config.o_bias = json.find_bool("attention_out_bias").value_or(false);
      config.mlp_bias = mlp_bias;
      break;
    case Family::gpt_oss:
      config.qkv_bias = config.o_bias = json.find_bool("attention_bias").value_or(true);
      config.has_sinks = true;
      break;
    case Family::olmo2:
    case Family::olmo3:
      config.qkv_bias = config.o_bias = attention_bias;
      config.qk_norm = config.norms_all_heads = config.norms_outputs = true;
      break;
    case Family::minimax_m2:
      config.qk_norm = config.norms_all_heads = true;
      break;
    case Family::mistral:
    case Family::ministral3:
    case Family::phi3:
    case Family::mixtral:
      break;
  }
}

// YaRN stretches the original length; the file often goes on to name that one.
std::int64_t stretched_positions(const ModelConfig& config) {
  if (config.rope.kind != RopeKind::yarn) return config.max_positions;
  const double stretched = config.rope.factor * static_cast<double>(config.rope.original_positions);
  return std::max(config.max_positions, std::min(std::lround(stretched), kMaxPositions));
}

// Qwen2.5-1M reaches its positions by dual chunk attention, which we lack. Within the original
// length that is plain attention.
std::int64_t plain_positions(const JsonObject& json, std::int64_t max_positions) {
  const char* key = "dual_chunk_attention_config";
  if (!json.has(key)) return max_positions;
  return std::min(max_positions, json.get_object(key).get_int("original_max_position_embeddings", 1,
                                                              kMaxPositions));
}

void refuse_what_we_lack(const JsonObject& json) {
  const std::string activation = json.find_string("hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish") {  // two names of one function
    fail(Exit::bad_data, "{}: key 'hidden_act': '{}' is not supported: expected silu", json.where(),
         activation);
  }
}

Dtype read_dtype(const JsonObject& json) {
  const char* key = json.has("dtype") ? "dtype" : "torch_dtype";
  const std::string name = json.find_string(key).value_or("bfloat16");
  if (name == "bfloat16") return Dtype::bf16;
  if (name == "float16") return Dtype::f16;
  if (name == "float32") return Dtype::f32;
  fail(Exit::bad_data, "{}: key '{}': '{}' is not supported: expected bfloat16, float16 or float32",
       json.where(), key, name);
}

// eos_token_id: a token, a list of them, or null for none.
void add_eos_tokens(const JsonObject& json, std::int64_t vocab_size, std::vector<Token>& tokens) {
  const char* key = "eos_token_id";
  if (!json.has(key)) return;
  const Json& value = json.get(key);
  const Json list = value.is_array() ? value : Json::array({value});
  for (const Json& token : list) {
    if (!token.is_number_unsigned() ||
        token.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocab_size)) {
      fail(Exit::bad_data, "{}: key '{}': expected token ids below vocab_size = {}, got {}",
           json.where(), key, vocab_size, to_line(value).substr(0, 80));
    }
    const auto id = token.get<Token>();
    if (std::find(tokens.begin(), tokens.end(), id) == tokens.end()) tokens.push_back(id);
  }
}

void read_special_tokens(const JsonObject& json, const FamilyDefaults& family,
                         ModelConfig& config) {
  config.bos_token = static_cast<Token>(
      json.find_int("bos_token_id", -1, config.vocab_size - 1)
          .value_or(says_nothing_of(json, "bos_token_id") && family.bos < config.vocab_size
                        ? family.bos
                        : -1));
  if (says_nothing_of(json, "eos_token_id") && family.eos >= 0 && family.eos < config.vocab_size)
    config.eos_tokens.push_back(family.eos);
  add_eos_tokens(json, config.vocab_size, config.eos_tokens);
}

}  // namespace

ModelConfig read_model_config(const std::string& folder) {
  const std::string path = folder + "/config.json";
  if (::access(path.c_str(), F_OK) != 0) {
    const std::string instead = what_is_there_instead(folder);
    if (!instead.empty())
      fail(Exit::no_input, "{}: expected a model's folder with config.json{}", folder, instead);
  }
  const Json file = read_config_file(path);
  const JsonObject whole(file, path);

  ModelConfig config;
  const FamilyDefaults& family = with_text_part(read_family(whole), whole);
  config.family = family.family;
  config.architecture = family.architecture;
  const JsonObject json = family.text_type ? whole.get_object("text_config") : whole;
  read_sizes(json, family, config);
  read_layer(json, config);
  config.tied_embeddings = (whole.has("tie_word_embeddings") ? whole : json)
                               .find_bool("tie_word_embeddings")
                               .value_or(family.tied);
  config.layers.resize(static_cast<std::size_t>(config.n_layers));
  read_mixture(json, config);
  if (config.family == Family::smollm3) read_layers_without_rope(json, config);
  // Absent, it would be a stretched one to transformers.
  const bool must_have_rope =
      config.family == Family::ministral3 || config.family == Family::gpt_oss;
  if (must_have_rope && !json.has("rope_scaling")) json.get("rope_parameters");
  read_ropes(json, family.rope_theta, read_windows(json, config), config);
  const JsonObject& quantised = key_of_quantization(whole) ? whole : json;
  config.mixture.are_f8 = config.family == Family::gpt_oss && has_mxfp4_experts(quantised);
  if (!config.mixture.are_f8) config.fp8 = read_fp8_config(quantised);
  const std::string beside = folder + "/hf_quant_config.json";
  if (!key_of_quantization(quantised) && ::access(beside.c_str(), F_OK) == 0) {
    const Json quantization = read_config_file(beside);
    config.fp8 = read_hf_quant_config(JsonObject(quantization, beside));
  }
  refuse_what_we_lack(json);
  config.max_positions =
      std::min(plain_positions(json, stretched_positions(config)), config.sliding_window);
  config.dtype = read_dtype(json.has("dtype") || json.has("torch_dtype") ? json : whole);
  read_special_tokens(json, family, config);

  const std::string generation_path = folder + "/generation_config.json";
  if (::access(generation_path.c_str(), F_OK) == 0) {
    const Json generation = read_config_file(generation_path);
    add_eos_tokens(JsonObject(generation, generation_path), config.vocab_size, config.eos_tokens);
  }
  return config;
}

}  // namespace starattn
