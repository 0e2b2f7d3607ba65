// SPDX-License-Identifier: Apache-2.0
#include "model/fp8_config.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "base/error.h"

namespace starattn {
namespace {

using Scales = Fp8Config::Scales;

constexpr std::int64_t kMaxBlock = std::int64_t{1} << 20;

[[noreturn]] void refuse(const JsonObject& json, const char* key, const std::string& expected,
                         const Json& got) {
  fail(Exit::bad_data,
       "{}: key '{}': expected {}, got {}: weights that are quantised otherwise are not supported; "
       "use the FP8, bf16, f16 or f32 model",
       json.where(), key, expected, to_line(got).substr(0, 80));
}

void expect(const JsonObject& json, const char* key, const Json& expected) {
  if (json.has(key) && json.get(key) != expected)
    refuse(json, key, to_line(expected), json.get(key));
}

void read_block(const JsonObject& json, const char* key, Fp8Config& fp8) {
  const Json& sizes = json.get(key);
  const auto is_size = [](const Json& size) {
    return size.is_number_unsigned() && size.get<std::uint64_t>() >= 1 &&
           size.get<std::uint64_t>() <= static_cast<std::uint64_t>(kMaxBlock);
  };
  if (!sizes.is_array() || sizes.size() != 2 || !is_size(sizes[0]) || !is_size(sizes[1])) {
    fail(Exit::bad_data, "{}: key '{}': expected two sizes from 1 to {}, got {}", json.where(), key,
         kMaxBlock, to_line(sizes).substr(0, 80));
  }
  fp8.scales = Scales::block;
  fp8.block_rows = sizes[0].get<std::int64_t>();
  fp8.block_cols = sizes[1].get<std::int64_t>();
}

// What those who scale groups of weights in their own ways have in common.
class Groups {
 public:
  explicit Groups(const JsonObject& json) : json_(&json) {}

  void add(const Fp8Config& one) {
    if (one.scales == Scales::none) return;
    if (!all_) all_ = one;
    if (all_->scales != one.scales) all_->scales = Scales::mixed;
    if (one.block_rows == 0) return;
    const bool is_first = all_->block_rows == 0;
    if (!is_first && (all_->block_rows != one.block_rows || all_->block_cols != one.block_cols)) {
      fail(Exit::bad_data,
           "{}: groups of weights with blocks of different sizes are not supported: {}x{} and "
           "{}x{}",
           json_->where(), all_->block_rows, all_->block_cols, one.block_rows, one.block_cols);
    }
    all_->block_rows = one.block_rows;
    all_->block_cols = one.block_cols;
  }
  Fp8Config all() const { return all_.value_or(Fp8Config{}); }

 private:
  const JsonObject* json_;
  std::optional<Fp8Config> all_;
};

// The weights of one of compressed-tensors' groups.
Fp8Config read_group(const JsonObject& group) {
  const JsonObject weights = group.get_object("weights");
  for (const auto& [key, expected] :
       {std::pair{"type", Json("float")}, {"num_bits", Json(8)}, {"symmetric", Json(true)}})
    expect(weights, key, expected);
  weights.get("type");
  weights.get("num_bits");
  Fp8Config fp8{Scales::tensor, 0, 0, "_scale"};
  const std::string strategy = weights.find_string("strategy").value_or("tensor");
  if (strategy == "channel") {
    fp8.scales = Scales::channel;
  } else if (strategy == "block") {
    read_block(weights, "block_structure", fp8);
  } else if (strategy == "group") {
    fp8.scales = Scales::block;
    fp8.block_rows = 1;
    fp8.block_cols = weights.get_int("group_size", 1, kMaxBlock);
  } else if (strategy != "tensor") {
    refuse(weights, "strategy", "tensor, channel, block or group", strategy);
  }
  return fp8;
}

// Weights may have been rotated together with what they are multiplied by. Where that is a weight
// as well, or q and k, nothing is left to do; rows have to be rotated while the model runs.
void refuse_rotated_rows(const JsonObject& json) {
  if (!json.has("transform_config")) return;
  const JsonObject transforms = json.get_object("transform_config");
  if (!transforms.has("config_groups")) return;
  const JsonObject groups = transforms.get_object("config_groups");
  for (const auto& [name, group] : groups.json().items()) {
    const JsonObject transform = groups.get_object(name.c_str());
    for (const Json& place : transform.get("apply")) {
      const std::string location =
          JsonObject(place, transform.where() + ": key 'apply'").get_string("location");
      if (location != "input" && location != "output") continue;
      fail(Exit::bad_data,
           "{}: key 'apply': a location of \"{}\" is not supported: it means that rows are rotated "
           "before or after products while the model runs; use the model without such transforms",
           transform.where(), location);
    }
  }
}

Fp8Config read_compressed_tensors(const JsonObject& json) {
  refuse_rotated_rows(json);
  if (json.has("sparsity_config")) expect(json.get_object("sparsity_config"), "format", "dense");
  if (!json.has("config_groups")) return {};
  const JsonObject groups = json.get_object("config_groups");
  Groups all(groups);
  for (const auto& [name, group] : groups.json().items()) {
    const JsonObject one = groups.get_object(name.c_str());
    if (one.has("weights")) all.add(read_group(one));  // others are of activations alone
  }
  return all.all();
}

// ModelOpt's words for scales of weights, some of which it writes in small letters. None: keys and
// values alone are quantised.
Fp8Config read_modelopt(const JsonObject& json) {
  if (!json.has("quant_algo")) return {};
  const std::string written = json.get_string("quant_algo");
  std::string algorithm = written;
  std::ranges::transform(algorithm, algorithm.begin(), [](unsigned char letter) {
    return static_cast<char>(std::toupper(letter));
  });
  if (algorithm == "FP8") return {Scales::tensor, 0, 0, "_scale"};
  if (algorithm == "FP8_PER_CHANNEL_PER_TOKEN") return {Scales::channel, 0, 0, "_scale"};
  if (algorithm == "FP8_PB_WO" || algorithm == "FP8_PB_REAL")
    return {Scales::block, 128, 128, "_scale"};
  if (algorithm == "MXFP8") return {Scales::block, 1, 32, "_scale"};
  if (algorithm != "MIXED_PRECISION") {
    refuse(json, "quant_algo",
           "FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO, FP8_PB_REAL, MXFP8 or MIXED_PRECISION",
           written);
  }
  const JsonObject layers = json.get_object("quantized_layers");
  Groups all(layers);
  for (const auto& [name, layer] : layers.json().items())
    all.add(read_modelopt(layers.get_object(name.c_str())));
  return all.all();
}

// What Quark says of weights.
Fp8Config read_quark_weights(const JsonObject& weights) {
  weights.get("dtype");
  weights.get("qscheme");
  expect(weights, "dtype", "fp8_e4m3");
  expect(weights, "symmetric", true);
  if (weights.get_string("qscheme") == "per_channel") {
    expect(weights, "ch_axis", 0);
    return {Scales::channel, 0, 0, "_scale"};
  }
  expect(weights, "qscheme", "per_tensor");
  return {Scales::tensor, 0, 0, "_scale"};
}

Fp8Config read_quark(const JsonObject& json) {
  if (json.has("export")) expect(json.get_object("export"), "weight_format", "real_quantized");
  if (json.has("algo_config")) {
    for (const Json& algorithm : json.get("algo_config")) {
      const JsonObject one(algorithm, json.where() + ": key 'algo_config'");
      // Others leave nothing to do but in the weights.
      for (const char* name : {"rotation", "svdquant"})
        if (one.get_string("name") == name) refuse(one, "name", "another algorithm", name);
    }
  }
  Groups all(json);
  const auto add = [&](const JsonObject& group) {
    if (group.has("weight")) all.add(read_quark_weights(group.get_object("weight")));
  };
  if (json.has("global_quant_config")) add(json.get_object("global_quant_config"));
  for (const char* key : {"layer_quant_config", "layer_type_quant_config"}) {
    if (!json.has(key)) continue;
    const JsonObject groups = json.get_object(key);
    for (const auto& [name, group] : groups.json().items()) add(groups.get_object(name.c_str()));
  }
  return all.all();
}

}  // namespace

Fp8Config read_hf_quant_config(const JsonObject& file) {
  return read_modelopt(file.get_object("quantization"));
}

const char* key_of_quantization(const JsonObject& config) {
  for (const char* key : {"quantization_config", "compression_config"})
    if (config.has(key)) return key;
  return nullptr;
}

Fp8Config read_fp8_config(const JsonObject& config) {
  if (config.has("quantization")) {
    fail(
        Exit::bad_data,
        "{}: key 'quantization': weights that MLX packed are not supported; use the FP8, bf16, f16 "
        "or f32 model",
        config.where());
  }
  const char* key = key_of_quantization(config);
  if (!key) return {};
  const JsonObject json = config.get_object(key);
  // ModelOpt did not always say its name here.
  if (!json.has("quant_method") && json.has("quant_algo")) return read_modelopt(json);
  const std::string method = json.find_string("quant_method").value_or("");
  if (method == "fp8") {
    expect(json, "fmt", "e4m3");
    Fp8Config fp8{Scales::tensor, 0, 0, "_scale_inv"};
    if (json.has("weight_block_size")) read_block(json, "weight_block_size", fp8);
    return fp8;
  }
  if (method == "compressed-tensors") return read_compressed_tensors(json);
  if (method == "fbgemm_fp8") return {Scales::channel, 0, 0, "_scale"};
  if (method == "modelopt") return read_modelopt(json);
  if (method == "quark") return read_quark(json);
  refuse(json, "quant_method", "fp8, compressed-tensors, fbgemm_fp8, modelopt or quark", method);
}

}  // namespace starattn
