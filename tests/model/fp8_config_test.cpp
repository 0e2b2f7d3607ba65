// SPDX-License-Identifier: Apache-2.0
// What config.json says of FP8 weights, in the words of those who write it, and what is refused.
#include "small_config.h"

namespace starattn {
namespace {

TEST(Fp8Configs, AreReadInTheirSpellings) {
  using Scales = Fp8Config::Scales;
  const auto read = [](const Json& json) {
    return read_config(small_config({{"quantization_config", json}})).fp8;
  };
  EXPECT_EQ(read(nullptr).scales, Scales::none);
  EXPECT_EQ(read({{"quant_method", "fp8"}}).scales, Scales::tensor);
  const Fp8Config blocks = read({{"quant_method", "fp8"}, {"weight_block_size", {128, 64}}});
  EXPECT_EQ(blocks.scales, Scales::block);
  EXPECT_EQ(blocks.block_rows, 128);
  EXPECT_EQ(blocks.block_cols, 64);
  EXPECT_EQ(blocks.suffix, "_scale_inv");
  EXPECT_EQ(read({{"quant_method", "fbgemm_fp8"}}).scales, Scales::channel);
  const auto group = [&](const Json& changes) {
    Json weights = {{"num_bits", 8}, {"type", "float"}, {"strategy", "tensor"}};
    weights.update(changes);
    return Json{{"quant_method", "compressed-tensors"},
                {"config_groups", {{"group_0", {{"weights", weights}}}}}};
  };
  EXPECT_EQ(read(group(Json::object())).scales, Scales::tensor);
  EXPECT_EQ(read(group(Json::object())).suffix, "_scale");
  EXPECT_EQ(read(group({{"strategy", "channel"}})).scales, Scales::channel);
  EXPECT_EQ(read(group({{"strategy", "block"}, {"block_structure", {128, 128}}})).block_cols, 128);

  const auto refused = [&](const Json& json, std::initializer_list<std::string_view> words) {
    expect_refused([&] { read(json); }, Exit::bad_data, words);
  };
  refused({{"bits", 4}}, {"'quant_method'", "compressed-tensors"});
  refused({{"quant_method", "gptq"}}, {"'quant_method'", "gptq"});
  refused({{"quant_method", "fp8"}, {"fmt", "e5m2"}}, {"'fmt'", "e5m2"});
  refused({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}}, {"'quant_algo'", "NVFP4"});
  for (const Json& sizes : {Json(128), Json{128}, Json{0, 128}, Json{128, -1}, Json{128, 1.5}})
    refused({{"quant_method", "fp8"}, {"weight_block_size", sizes}}, {"'weight_block_size'"});
  refused(group({{"num_bits", 4}}), {"'num_bits'", "4"});
  refused(group({{"type", "int"}}), {"'type'", "int"});
  refused(group({{"strategy", "tensor_group"}}), {"'strategy'", "tensor_group"});
  refused(group({{"strategy", "group"}}), {"'group_size'"});
  refused(group({{"strategy", "block"}}), {"'block_structure'"});
  const auto two = [&](const Json& first, const Json& second) {
    Json both = group(first);
    both["config_groups"]["group_1"] = group(second)["config_groups"]["group_0"];
    return both;
  };
  const auto blocks_of = [](std::int64_t size) {
    return Json{{"strategy", "block"}, {"block_structure", {size, size}}};
  };
  EXPECT_EQ(read(two({{"strategy", "channel"}}, {{"strategy", "channel"}})).scales,
            Scales::channel);
  EXPECT_EQ(read(two({{"strategy", "tensor"}}, {{"strategy", "channel"}})).scales, Scales::mixed);
  const Fp8Config mixed = read(two({{"strategy", "channel"}}, blocks_of(64)));
  EXPECT_EQ(mixed.scales, Scales::mixed);
  EXPECT_EQ(mixed.block_rows, 64);
  refused(two(blocks_of(64), blocks_of(128)), {"'config_groups'", "64x64", "128x128"});

  Json sparse = group(Json::object());
  sparse["sparsity_config"] = {{"format", "sparse-24-bitmask"}};
  refused(sparse, {"'sparsity_config'", "'format'", "sparse-24-bitmask"});
}

// As Qwen3-32B-FP8-Static-PerTensor has it, which ModelOpt 0.31 wrote.
TEST(Fp8Configs, OfModelOptMayNotSayItsName) {
  const Json words = Json::parse(R"({
    "config_groups": {"group_0": {
      "input_activations": {"dynamic": false, "num_bits": 8, "type": "float"},
      "weights": {"dynamic": false, "num_bits": 8, "type": "float"}}},
    "ignore": ["lm_head"], "quant_algo": "FP8", "kv_cache_scheme": "FP8",
    "producer": {"name": "modelopt", "version": "0.31.0"}})");
  const auto read = [](const Json& json) {
    return read_config(small_config({{"quantization_config", json}})).fp8;
  };
  EXPECT_EQ(read(words).scales, Fp8Config::Scales::tensor);
  EXPECT_EQ(read(words).suffix, "_scale");
  Json narrow = words;
  narrow["quant_algo"] = "NVFP4";
  expect_refused([&] { read(narrow); }, Exit::bad_data, {"'quant_algo'", "NVFP4"});
}

TEST(Fp8Configs, OfEarlyCompressedTensorsHaveAnotherKey) {
  const Json words = {
      {"quant_method", "compressed-tensors"},
      {"config_groups",
       {{"group_0",
         {{"weights", {{"num_bits", 8}, {"type", "float"}, {"strategy", "channel"}}}}}}}};
  EXPECT_EQ(read_config(small_config({{"compression_config", words}})).fp8.scales,
            Fp8Config::Scales::channel);
  Json narrow = words;
  narrow["config_groups"]["group_0"]["weights"]["num_bits"] = 4;
  expect_refused(
      [&] {
        read_config(small_config({{"compression_config", narrow}}));
      },
      Exit::bad_data, {"'compression_config'", "'num_bits'"});
}

// MLX says it under one key or both.
TEST(Fp8Configs, OfMlxAreRefusedByName) {
  const Json packed = {{"group_size", 64}, {"bits", 8}};
  for (const Json& config : {Json{{"quantization", packed}},
                             Json{{"quantization", packed}, {"quantization_config", packed}}}) {
    expect_refused([&] { read_config(small_config(config)); }, Exit::bad_data,
                   {"'quantization'", "MLX"});
  }
}

TEST(Fp8Configs, OfQuarkAreRefusedWhereTheyMeanMore) {
  const auto refused = [](const Json& changes, std::initializer_list<std::string_view> words) {
    Json json = {
        {"quant_method", "quark"},
        {"global_quant_config",
         {{"weight", {{"dtype", "fp8_e4m3"}, {"qscheme", "per_tensor"}, {"symmetric", true}}}}}};
    EXPECT_EQ(read_config(small_config({{"quantization_config", json}})).fp8.scales,
              Fp8Config::Scales::tensor);
    json.merge_patch(changes);
    expect_refused(
        [&] {
          read_config(small_config({{"quantization_config", json}}));
        },
        Exit::bad_data, words);
  };
  const auto of_weight = [](const Json& changes) {
    return Json{{"global_quant_config", {{"weight", changes}}}};
  };
  refused(of_weight({{"dtype", "int4"}}), {"'dtype'", "int4"});
  refused(of_weight({{"dtype", nullptr}}), {"'dtype'"});
  refused(of_weight({{"qscheme", "per_group"}}), {"'qscheme'", "per_group"});
  refused(of_weight({{"qscheme", "per_channel"}, {"ch_axis", 1}}), {"'ch_axis'", "1"});
  refused({{"layer_quant_config",
            {{"*mlp*", {{"weight", {{"dtype", "fp4"}, {"qscheme", "per_group"}}}}}}}},
          {"'layer_quant_config'", "'*mlp*'", "fp4"});
  refused({{"export", {{"weight_format", "fake_quantized"}}}}, {"'weight_format'", "fake"});
  refused({{"algo_config", Json::array({{{"name", "rotation"}, {"r4", true}}})}},
          {"'algo_config'", "rotation"});
}

// Rotations of rows, which a model needs while it runs, beside those that are all in its weights.
TEST(Fp8Configs, AreRefusedWithRotationsOfRows) {
  const auto read = [](std::initializer_list<const char*> locations) {
    Json apply = Json::array();
    for (const char* location : locations)
      apply.push_back({{"location", location}, {"targets", {"Linear"}}, {"inverse", false}});
    return read_config(
               small_config(
                   {{"quantization_config",
                     {{"quant_method", "compressed-tensors"},
                      {"config_groups",
                       {{"group_0", {{"weights", {{"num_bits", 8}, {"type", "float"}}}}}}},
                      {"transform_config",
                       {{"config_groups", {{"R4", {{"type", "hadamard"}, {"apply", apply}}}}}}}}}}))
        .fp8.scales;
  };
  EXPECT_EQ(read({"weight_output", "weight_input"}), Fp8Config::Scales::tensor);
  EXPECT_EQ(read({"q_attn", "k_cache"}), Fp8Config::Scales::tensor);
  for (const char* location : {"input", "output"}) {
    expect_refused(
        [&] {
          read({"weight_input", location});
        },
        Exit::bad_data, {"'transform_config'", "'R4'", location});
  }
}

}  // namespace
}  // namespace starattn
