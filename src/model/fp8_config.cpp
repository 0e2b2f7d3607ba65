// SPDX-License-Identifier: Apache-2.0
#include "model/fp8_config.h"

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
  } else if (strategy != "tensor") {
    refuse(weights, "strategy", "tensor, channel or block", strategy);
  }
  return fp8;
}

Fp8Config read_groups(const JsonObject& json) {
  const JsonObject groups = json.get_object("config_groups");
  std::optional<Fp8Config> all;
  for (const auto& [name, group] : groups.json().items()) {
    const Fp8Config fp8 = read_group(groups.get_object(name.c_str()));
    if (all && (all->scales != fp8.scales || all->block_rows != fp8.block_rows ||
                all->block_cols != fp8.block_cols)) {
      fail(Exit::bad_data,
           "{}: groups whose weights are scaled in different ways are not supported",
           groups.where());
    }
    all = fp8;
  }
  if (!all) fail(Exit::bad_data, "{}: expected a group of weights, got none", groups.where());
  return *all;
}

// ModelOpt's words for scales of weights.
Fp8Config read_modelopt(const JsonObject& json) {
  const std::string algorithm = json.get_string("quant_algo");
  if (algorithm == "FP8") return {Scales::tensor, 0, 0, "_scale"};
  if (algorithm == "FP8_PER_CHANNEL_PER_TOKEN") return {Scales::channel, 0, 0, "_scale"};
  if (algorithm == "FP8_PB_WO") return {Scales::block, 128, 128, "_scale"};
  refuse(json, "quant_algo", "FP8, FP8_PER_CHANNEL_PER_TOKEN or FP8_PB_WO", algorithm);
}

}  // namespace

Fp8Config read_hf_quant_config(const JsonObject& file) {
  const JsonObject json = file.get_object("quantization");
  return json.has("quant_algo") ? read_modelopt(json) : Fp8Config{};
}

Fp8Config read_fp8_config(const JsonObject& config) {
  const char* key = "quantization_config";
  if (!config.has(key)) return {};
  const JsonObject json = config.get_object(key);
  const std::string method = json.find_string("quant_method").value_or("");
  if (method == "fp8") {
    expect(json, "fmt", "e4m3");
    Fp8Config fp8{Scales::tensor, 0, 0, "_scale_inv"};
    if (json.has("weight_block_size")) read_block(json, "weight_block_size", fp8);
    return fp8;
  }
  if (method == "compressed-tensors") return read_groups(json);
  if (method == "fbgemm_fp8") return {Scales::channel, 0, 0, "_scale"};
  if (method == "modelopt") return read_modelopt(json);
  refuse(json, "quant_method", "fp8, compressed-tensors, fbgemm_fp8 or modelopt", method);
}

}  // namespace starattn
