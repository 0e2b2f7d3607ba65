// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 24;  // vocabulary, widths
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 32;

struct Known {
  Family family;
  const char* model_type;
};
const std::map<std::string, Known> kArchitectures = {
    {"LlamaForCausalLM", {Family::llama, "llama"}},
    {"Qwen2ForCausalLM", {Family::qwen2, "qwen2"}},
    {"Qwen3ForCausalLM", {Family::qwen3, "qwen3"}},
    {"MistralForCausalLM", {Family::mistral, "mistral"}},
};

void read_family(const JsonObject& json, ModelConfig& config) {
  const std::string supported =
      "supported are LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM and MistralForCausalLM";
  if (json.has("architectures")) {
    const Json& names = json.get("architectures");
    if (!names.is_array() || names.size() != 1 || !names[0].is_string()) {
      fail(Exit::bad_data, "{}: key 'architectures': expected one name, got {}", json.where(),
           to_line(names));
    }
    config.architecture = names[0].get<std::string>();
  } else {
    const std::string type = json.get_string("model_type");
    for (const auto& [name, known] : kArchitectures) {
      if (type == known.model_type) config.architecture = name;
    }
    if (config.architecture.empty())
      fail(Exit::bad_data, "{}: model type '{}': {}", json.where(), type, supported);
  }
  const auto it = kArchitectures.find(config.architecture);
  if (it == kArchitectures.end()) {
    fail(Exit::bad_data, "{}: architecture '{}': {}", json.where(), config.architecture, supported);
  }
  config.family = it->second.family;
}

void refuse_what_we_lack(const JsonObject& json, const ModelConfig& config) {
  if (json.has("quantization_config")) {
    fail(Exit::bad_data,
         "{}: quantization_config: quantised weights are not supported; use the bf16 model",
         json.where());
  }
  const std::string act = json.find_string("hidden_act").value_or("silu");
  if (act != "silu" && act != "swish")
    fail(Exit::bad_data, "{}: hidden_act '{}': expected silu", json.where(), act);
  const double partial = json.find_number("partial_rotary_factor").value_or(1.0);
  if (partial != 1.0)
    fail(Exit::bad_data, "{}: partial_rotary_factor {}: expected 1", json.where(), partial);

  // A window that no position reaches is not in use.
  const auto window = json.find_int("sliding_window", 0, kMaxPositions);
  const bool switched_on =
      config.family == Family::mistral || json.find_bool("use_sliding_window").value_or(false);
  if (window && switched_on && *window < config.max_positions) {
    fail(Exit::bad_data, "{}: sliding_window {}: sliding-window attention is not supported",
         json.where(), *window);
  }
  if (!json.has("layer_types")) return;
  for (const Json& type : json.get("layer_types")) {
    if (type != "full_attention") {
      fail(Exit::bad_data, "{}: layer_types: {}: only full_attention is supported", json.where(),
           to_line(type));
    }
  }
}

RopeConfig read_rope(const JsonObject& json, std::int64_t max_positions) {
  RopeConfig rope;
  rope.theta = json.find_number("rope_theta").value_or(10000.0);
  const bool is_new = json.has("rope_parameters");
  if (is_new || json.has("rope_scaling")) {
    const JsonObject scaling = json.get_object(is_new ? "rope_parameters" : "rope_scaling");
    rope.theta = scaling.find_number("rope_theta").value_or(rope.theta);
    const std::string type =
        scaling.find_string("rope_type").value_or(scaling.find_string("type").value_or("default"));
    static const std::map<std::string, RopeKind> kKinds = {{"default", RopeKind::standard},
                                                           {"linear", RopeKind::linear},
                                                           {"llama3", RopeKind::llama3},
                                                           {"yarn", RopeKind::yarn}};
    const auto kind = kKinds.find(type);
    if (kind == kKinds.end()) {
      fail(Exit::bad_data,
           "{}: RoPE type '{}': supported are default, linear, llama3 and yarn (the angles of "
           "dynamic "
           "and longrope depend on the length, so blocks could not be encoded apart)",
           scaling.where(), type);
    }
    rope.kind = kind->second;
    if (rope.kind != RopeKind::standard) rope.factor = scaling.get_number("factor");
    const auto original = scaling.find_int("original_max_position_embeddings", 1, kMaxPositions);
    if (rope.kind == RopeKind::llama3) {
      rope.original_positions =
          scaling.get_int("original_max_position_embeddings", 1, kMaxPositions);
      rope.low_freq_factor = scaling.get_number("low_freq_factor");
      rope.high_freq_factor = scaling.get_number("high_freq_factor");
    }
    if (rope.kind == RopeKind::yarn) {
      rope.original_positions = original.value_or(max_positions);
      rope.beta_fast = scaling.find_number("beta_fast").value_or(32.0);
      rope.beta_slow = scaling.find_number("beta_slow").value_or(1.0);
      rope.attention_factor = scaling.find_number("attention_factor").value_or(0.0);
      rope.mscale = scaling.find_number("mscale").value_or(0.0);
      rope.mscale_all_dim = scaling.find_number("mscale_all_dim").value_or(0.0);
      rope.truncate = scaling.find_bool("truncate").value_or(true);
    }
    if (rope.factor < 1 || rope.low_freq_factor <= 0 ||
        rope.high_freq_factor <= rope.low_freq_factor) {
      fail(Exit::bad_data,
           "{}: expected factor >= 1 and 0 < low_freq_factor < high_freq_factor, got {}",
           scaling.where(), to_line(scaling.json()));
    }
  }
  if (!(rope.theta > 1))
    fail(Exit::bad_data, "{}: rope_theta: expected more than 1, got {}", json.where(), rope.theta);
  return rope;
}

// A token id or a list of them; nothing for null.
void add_tokens(const JsonObject& json, const char* key, std::int64_t vocab_size,
                std::vector<Token>& tokens) {
  if (!json.has(key)) return;
  const Json& value = json.get(key);
  const Json list = value.is_array() ? value : Json::array({value});
  for (const Json& token : list) {
    if (!token.is_number_unsigned() ||
        token.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocab_size)) {
      fail(Exit::bad_data, "{}: key '{}': expected token ids below {}, got {}", json.where(), key,
           vocab_size, to_line(value));
    }
    const auto id = token.get<Token>();
    if (std::find(tokens.begin(), tokens.end(), id) == tokens.end()) tokens.push_back(id);
  }
}

}  // namespace

ModelConfig read_model_config(const std::string& folder) {
  const std::string path = folder + "/config.json";
  const Json file = read_json_file(path, {std::size_t{16} << 20, 32});
  const JsonObject json(file, path);
  ModelConfig config;
  read_family(json, config);
  const bool is_qwen = config.family == Family::qwen2 || config.family == Family::qwen3;

  config.vocab_size = json.get_int("vocab_size", 1, kMaxSize);
  config.hidden_size = json.get_int("hidden_size", 1, kMaxSize);
  config.intermediate_size = json.get_int("intermediate_size", 1, kMaxSize);
  config.n_layers = json.get_int("num_hidden_layers", 1, 4096);
  config.n_heads = json.get_int("num_attention_heads", 1, 4096);
  config.n_kv_heads = json.find_int("num_key_value_heads", 1, 4096).value_or(config.n_heads);
  const auto head_dim = json.find_int("head_dim", 2, 1024);
  if (!head_dim && config.hidden_size % config.n_heads != 0) {
    fail(Exit::bad_data,
         "{}: hidden_size {} is no multiple of num_attention_heads {}, and head_dim is absent",
         path, config.hidden_size, config.n_heads);
  }
  config.head_dim =
      head_dim.value_or(config.family == Family::qwen3 ? 128 : config.hidden_size / config.n_heads);
  config.max_positions = json.find_int("max_position_embeddings", 1, kMaxPositions).value_or(2048);
  config.rms_norm_eps = json.find_number("rms_norm_eps").value_or(1e-6);
  config.tied_embeddings = json.find_bool("tie_word_embeddings").value_or(false);
  if (config.n_heads % config.n_kv_heads != 0) {
    fail(Exit::bad_data, "{}: num_attention_heads {} is no multiple of num_key_value_heads {}",
         path, config.n_heads, config.n_kv_heads);
  }
  if (config.head_dim % 2 != 0)
    fail(Exit::bad_data, "{}: head_dim {}: expected an even number", path, config.head_dim);
  if (config.rms_norm_eps < 0)
    fail(Exit::bad_data, "{}: rms_norm_eps {} is negative", path, config.rms_norm_eps);

  const bool attention_bias = json.find_bool("attention_bias").value_or(false);
  config.qkv_bias = config.family == Family::qwen2 || attention_bias;
  config.o_bias = config.family != Family::qwen2 && attention_bias;
  config.mlp_bias = !is_qwen && json.find_bool("mlp_bias").value_or(false);
  config.qk_norm = config.family == Family::qwen3;
  config.rope = read_rope(json, config.max_positions);
  refuse_what_we_lack(json, config);

  const std::string dtype =
      json.find_string("dtype").value_or(json.find_string("torch_dtype").value_or("bfloat16"));
  config.dtype = dtype == "float32" ? Dtype::f32 : dtype == "float16" ? Dtype::f16 : Dtype::bf16;
  config.bos_token =
      static_cast<Token>(json.find_int("bos_token_id", 0, config.vocab_size - 1).value_or(-1));
  add_tokens(json, "eos_token_id", config.vocab_size, config.eos_tokens);
  const std::string generation_path = folder + "/generation_config.json";
  if (::access(generation_path.c_str(), F_OK) == 0) {
    const Json generation = read_json_file(generation_path, {std::size_t{16} << 20, 32});
    add_tokens(JsonObject(generation, generation_path), "eos_token_id", config.vocab_size,
               config.eos_tokens);
  }
  return config;
}

std::uint64_t n_parameters(const ModelConfig& c) {
  const auto count = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const std::uint64_t layer = count(c.hidden_size) * count(2 * c.q_width() + 2 * c.kv_width() +
                                                           3 * c.intermediate_size + 2);
  return count(c.n_layers) * layer +
         count(c.vocab_size) * count(c.hidden_size) * (c.tied_embeddings ? 1 : 2) +
         count(c.hidden_size);
}

std::string describe(const ModelConfig& c) {
  static const std::map<RopeKind, const char*> kRope = {{RopeKind::standard, ""},
                                                        {RopeKind::linear, " linear"},
                                                        {RopeKind::llama3, " llama3"},
                                                        {RopeKind::yarn, " yarn"}};
  return fmt::format(
      "{}, {:.1f}M parameters, {} layers, hidden {}, {} heads / {} KV heads, head dim {}, "
      "vocabulary {}, "
      "RoPE {}{}, {} positions",
      c.architecture, static_cast<double>(n_parameters(c)) * 1e-6, c.n_layers, c.hidden_size,
      c.n_heads, c.n_kv_heads, c.head_dim, with_commas(c.vocab_size), c.rope.theta,
      kRope.at(c.rope.kind), with_commas(c.max_positions));
}

}  // namespace starattn
