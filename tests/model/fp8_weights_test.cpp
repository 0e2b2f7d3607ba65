// SPDX-License-Identifier: Apache-2.0
// FP8 weights: which matrices have scales, and what is refused.
#include "tampered_model.h"

namespace starattn {
namespace {

const std::string kBlocks = "model.layers.2.self_attn.k_proj.weight";    // of qwen3_moe_fp8
const std::string kChannels = "model.layers.0.self_attn.k_proj.weight";  // of llama_fp8_channel

TEST(Fp8Weights, HaveAScaleForEachBlock) {
  const ModelWeights weights = open_model(kGoldenModels + "qwen3_moe_fp8");
  const WeightView& k = weights.layers[2].k_proj;  // [64, 48]
  EXPECT_EQ(k.dtype, Dtype::f8);
  EXPECT_EQ(k.n_bytes(), 64U * 48);
  EXPECT_EQ(k.scales.block_rows, 32);
  EXPECT_EQ(k.scales.block_cols, 20);
  EXPECT_EQ(k.n_scales_of_row(), 3);
  const SafetensorsFile file(kGoldenModels + "qwen3_moe_fp8/" + kFile);
  const TensorView* scales = file.find(kBlocks + "_scale_inv");
  ASSERT_TRUE(scales);
  for (std::int64_t row = 0; row < k.n_rows; ++row) {
    for (std::int64_t i = 0; i < 3; ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, scales->data + (row / 32 * 3 + i) * 2, 2);
      EXPECT_EQ(k.scales_of_row(row)[i], bf16_to_f32(bits));
    }
  }
  const WeightView& expert = weights.layers[2].experts[3].up_proj;
  EXPECT_EQ(expert.dtype, Dtype::f8);
  EXPECT_TRUE(expert.scales.data);
  // What the config leaves out is as it is in the file.
  EXPECT_EQ(weights.layers[1].down_proj.dtype, Dtype::bf16);
  EXPECT_EQ(weights.lm_head.dtype, Dtype::bf16);
  EXPECT_FALSE(weights.lm_head.scales.data);
}

TEST(Fp8Weights, HaveAScaleForEachRowOrOneForAll) {
  const WeightView k =
      open_model(kGoldenModels + "llama_fp8_channel").layers[0].k_proj;  // [32, 48]
  EXPECT_EQ(k.scales.block_rows, 1);
  EXPECT_EQ(k.scales.block_cols, 48);

  for (const Json& shape : {Json::array(), Json{1}, Json{1, 1}}) {
    TamperedModel whole("llama_fp8_channel");
    Json& config = whole.config()["quantization_config"];
    config = {{"quant_method", "modelopt"}, {"quant_algo", "FP8"}};
    const ModelWeights narrow = open_model(kGoldenModels + "llama_fp8_channel");
    for (const WeightView& w : narrow.all()) {
      if (w.dtype == Dtype::f8)
        whole.replace(narrow.name_of(w).name + "_scale", "F32", shape, bytes_of({0.5F}));
    }
    const ModelWeights weights = whole.open_it();
    const WeightView& one = weights.layers[0].k_proj;
    EXPECT_EQ(one.scales.block_rows, 32);
    EXPECT_EQ(one.scales_of_row(31)[0], 0.5F);
  }
}

TEST(Fp8Weights, MayHavePowersOfTwoAsScales) {
  for (const char* dtype : {"F8_E8M0", "U8"}) {
    TamperedModel folder("llama_fp8_channel");
    std::string powers(32, '\x7f');
    powers[0] = '\0';
    powers[1] = '\x80';
    powers[2] = '\xfe';
    folder.replace(kChannels + "_scale", dtype, {32, 1}, powers);
    const ModelWeights weights = folder.open_it();
    const WeightView& k = weights.layers[0].k_proj;
    EXPECT_EQ(k.scales_of_row(0)[0], std::ldexp(1.0F, -127));
    EXPECT_EQ(k.scales_of_row(1)[0], 2);
    EXPECT_EQ(k.scales_of_row(2)[0], std::ldexp(1.0F, 127));
    EXPECT_EQ(k.scales_of_row(3)[0], 1);
    powers[5] = '\xff';
    TamperedModel bad("llama_fp8_channel");
    bad.replace(kChannels + "_scale", dtype, {32, 1}, powers);
    bad.expect_refused({kChannels + "_scale", "above 0", "number 5"});
  }
}

TEST(Fp8Weights, OfDifferentGroupsAreScaledAsTheirScalesAre) {
  const auto layer = [](const char* algorithm) { return Json{{"quant_algo", algorithm}}; };
  const Json words = {{"quant_method", "modelopt"},
                      {"quant_algo", "MIXED_PRECISION"},
                      {"quantized_layers",
                       {{"model.layers.0.self_attn.q_proj", layer("FP8")},
                        {"model.layers.0.self_attn.k_proj", layer("FP8_PER_CHANNEL_PER_TOKEN")},
                        {"model.layers.0.mlp.gate_proj", layer("fp8_pb_wo")}}}};
  const std::string layer0 = "model.layers.0.", gate = layer0 + "mlp.gate_proj.weight_scale";
  TamperedModel folder("llama_fp8_channel");
  folder.config()["quantization_config"] = words;
  folder.replace(layer0 + "self_attn.q_proj.weight_scale", "F32", Json::array(), bytes_of({2}));
  folder.replace(layer0 + "self_attn.o_proj.weight_scale", "F32", {1, 1, 1, 1}, bytes_of({4}));
  folder.replace(gate, "F32", {1, 1}, bytes_of({3}));
  const ModelWeights weights = folder.open_it();
  const LayerWeights& first = weights.layers[0];
  EXPECT_EQ(first.q_proj.scales_of_row(63)[0], 2);
  EXPECT_EQ(first.k_proj.scales.block_rows, 1);
  EXPECT_EQ(first.o_proj.scales_of_row(47)[0], 4);
  EXPECT_EQ(first.gate_proj.scales_of_row(95)[0], 3);

  TamperedModel misshapen("llama_fp8_channel");
  misshapen.config()["quantization_config"] = words;
  misshapen.replace(gate, "F32", {2, 1}, bytes_of({3, 3}));
  misshapen.expect_refused({gate, "[1, 1]", "[2, 1]"});
  TamperedModel other("llama_fp8_channel");
  other.config()["quantization_config"] = words;
  other.config()["quantization_config"]["quantized_layers"]["model.layers.1.mlp.gate_proj"] =
      layer("NVFP4");
  other.expect_refused({"'quantized_layers'", "model.layers.1.mlp.gate_proj", "NVFP4"});
}

// Keys and values alone are quantised.
TEST(Fp8Weights, MayBeNone) {
  for (const Json& words :
       {Json{{"quant_method", "compressed-tensors"},
             {"config_groups", Json::object()},
             {"kv_cache_scheme", {{"num_bits", 8}, {"type", "float"}}}},
        Json{{"quant_method", "compressed-tensors"}, {"transform_config", Json::object()}},
        Json{{"quant_method", "modelopt"}, {"kv_cache_scheme", {{"num_bits", 8}}}}}) {
    TamperedModel wide("llama31");
    wide.config()["quantization_config"] = words;
    EXPECT_EQ(wide.open_it().layers[0].k_proj.dtype, Dtype::bf16);
    TamperedModel narrow("llama_fp8_channel");
    narrow.config()["quantization_config"] = words;
    narrow.expect_refused({"q_proj.weight", "FP8", "quantization_config"});
  }
}

// Older folders of ModelOpt have nothing of it in config.json.
TEST(Fp8Weights, OfModelOptMayBeSaidBesideTheConfig) {
  TamperedModel folder("llama_fp8_channel");
  folder.config().erase("quantization_config");
  folder.write(
      "hf_quant_config.json",
      R"({"producer": {"name": "modelopt", "version": "0.15.1"}, "quantization": {"quant_algo":
               "FP8_PER_CHANNEL_PER_TOKEN", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}})");
  EXPECT_EQ(folder.open_it().layers[0].k_proj.scales.block_rows, 1);
  folder.write("hf_quant_config.json", R"({"quantization": {"quant_algo": "MIXED_PRECISION"}})");
  folder.expect_refused({"hf_quant_config.json", "'quantized_layers'"});
  folder.write("hf_quant_config.json", R"({"quantization": {"quant_algo": "W4A16_AWQ"}})");
  folder.expect_refused({"hf_quant_config.json", "'quant_algo'", "W4A16_AWQ"});
  folder.write("hf_quant_config.json",
               R"({"quantization": {"quant_algo": null, "kv_cache_quant_algo": "FP8"}})");
  folder.expect_refused({"q_proj.weight", "FP8", "quantization_config"});
}

TEST(Fp8Weights, AreRefusedWithBadScales) {
  for (const float bad : {0.0F, -1.0F, NAN, INFINITY}) {
    TamperedModel folder("llama_fp8_channel");
    std::vector<float> scales(32, 0.01F);
    scales[7] = bad;
    folder.replace(kChannels + "_scale", "F32", {32, 1}, bytes_of(scales));
    folder.expect_refused({kFile, kChannels + "_scale", "above 0", "number 7"});
  }
  const std::vector<float> good(33, 0.01F);
  TamperedModel fewer("llama_fp8_channel");
  fewer.replace(kChannels + "_scale", "F32", {33, 1}, bytes_of(good));
  fewer.expect_refused({kChannels + "_scale", "[32, 1]", "[33, 1]"});
  TamperedModel flat("qwen3_moe_fp8");
  flat.replace(kBlocks + "_scale_inv", "F32", {6}, bytes_of({1, 1, 1, 1, 1, 1}));
  flat.expect_refused({kBlocks + "_scale_inv", "[2, 3]", "[6]"});
  TamperedModel packed("llama_fp8_channel");
  packed.replace(kChannels + "_scale", "F8_E4M3", {32, 1}, std::string(32, 'x'));
  packed.expect_refused({kChannels + "_scale", "F8_E4M3"});
  TamperedModel missing("llama_fp8_channel");
  missing.rename(kChannels + "_scale", "unused");
  missing.expect_refused({kChannels + "_scale", "has none"});
}

// As ModelOpt writes them: one for all experts, or one for each.
TEST(Fp8Weights, OfExpertsInOneTensorMayHaveAScaleEach) {
  const std::string experts = "model.layers.0.mlp.experts.gate_up_proj";
  const std::string scale = experts + "_weight_scale";
  TamperedModel each("modelopt_gpt_oss");
  each.replace(scale, "F32", {4}, bytes_of({1, 2, 3, 4}));
  const ModelWeights weights = each.open_it();
  EXPECT_EQ(weights.layers[0].experts[2].up_proj.scales_of_row(5)[0], 3);
  EXPECT_EQ(weights.layers[0].experts[2].up_proj.dtype, Dtype::f8);
  TamperedModel fewer("modelopt_gpt_oss");
  fewer.replace(scale, "F32", {3}, bytes_of({1, 2, 3}));
  fewer.expect_refused({kFile, scale, "each of 4 experts", "[3]"});
  TamperedModel bad("modelopt_gpt_oss");
  bad.replace(scale, "F32", Json::array(), bytes_of({0.0F}));
  bad.expect_refused({scale, "above 0"});
  TamperedModel wide("modelopt_gpt_oss");
  wide.entry_of(experts)["dtype"] = "F8_E5M2";
  wide.expect_refused({experts, "F8_E4M3", "F8_E5M2"});
  TamperedModel silent("modelopt_gpt_oss");
  silent.rename(scale, "unused");
  silent.expect_refused({experts, "F8_E4M3", "products"});
}

// As transformers leaves those of Qwen3-VL.
TEST(Fp8Weights, OfExpertsInOneTensorMayHaveBlocks) {
  const std::string both = "model.language_model.layers.0.mlp.experts.gate_up_proj";
  const std::string name = "transformers_qwen3_vl_moe";
  std::vector<float> scales;  // [8 experts, 4, 3]: two rows of blocks for gate, then two for up
  for (int i = 0; i < 96; ++i) scales.push_back(static_cast<float>(i + 1));
  TamperedModel folder(name);
  folder.replace(both + "_scale_inv", "F32", {8, 4, 3}, bytes_of(scales));
  const ModelWeights weights = folder.open_it();
  const Expert& expert = weights.layers[0].experts[5];
  EXPECT_FALSE(weights.are_made());  // they are as the file has them
  EXPECT_EQ(expert.gate_proj.scales_of_row(15)[2], 5 * 12 + 3);
  EXPECT_EQ(expert.up_proj.scales_of_row(16)[0], 5 * 12 + 10);
  EXPECT_EQ(weights.name_of(expert.up_proj).name, both + "[5][32:64]");
  TamperedModel fewer(name);
  fewer.replace(both + "_scale_inv", "F32", {8, 2, 6}, bytes_of(scales));
  fewer.expect_refused({kFile, both + "_scale_inv", "[8, 4, 3]", "[8, 2, 6]"});
}

TEST(Fp8Weights, AreRefusedWhereNobodySaysTheirScales) {
  TamperedModel folder("llama_fp8_channel");
  folder.config().erase("quantization_config");
  folder.expect_refused({"q_proj.weight", "FP8", "quantization_config"});
  TamperedModel table("llama_fp8_channel");
  table.replace("model.embed_tokens.weight", "F8_E4M3", {160, 48}, std::string(160 * 48, 'x'));
  table.expect_refused({"embed_tokens.weight", "F8_E4M3", "products"});
  TamperedModel other("llama_fp8_channel");
  other.entry_of(kChannels)["dtype"] = "F8_E5M2";
  other.expect_refused({kChannels, "F8_E5M2"});
}

TEST(MadeFp8, HasAScaleForEachRow) {
  const std::string folder = kGoldenModels + "qwen3_moe";
  ModelConfig config = read_model_config(folder);
  const ModelWeights wide = ModelWeights::open(folder, config);
  ModelWeights made = wide;
  const std::string plain = canonical_text(config);
  config.fp8.scales = Fp8Config::Scales::made;
  made.make_fp8();
  EXPECT_EQ(canonical_text(config), plain + " fp8=made 1");
  ModelConfig rounded = config;
  rounded.fp8.rounds_rows = true;
  EXPECT_EQ(canonical_text(rounded), plain + " fp8=made 1 activations=fp8 1");
  const auto value_of = [](const WeightView& w, std::int64_t i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, w.data + i * 2, 2);
    return bf16_to_f32(bits);
  };
  const auto expect_close = [&](const WeightView& f8, const WeightView& from) {
    ASSERT_EQ(f8.dtype, Dtype::f8);
    ASSERT_EQ(from.dtype, Dtype::bf16);
    made.fill(f8);
    for (std::int64_t row = 0; row < f8.n_rows; ++row) {
      float largest = 0;
      for (std::int64_t i = 0; i < f8.n_cols; ++i)
        largest = std::max(largest, std::abs(value_of(from, row * f8.n_cols + i)));
      const float scale = f8.scales_of_row(row)[0];
      EXPECT_EQ(scale, f8_scale(f8_exponent(largest)));
      for (std::int64_t i = row * f8.n_cols; i < (row + 1) * f8.n_cols; ++i) {
        const float value = f8_to_f32(std::to_integer<std::uint8_t>(f8.data[i])) * scale;
        const float expected = value_of(from, i);
        EXPECT_LE(std::abs(value - expected),
                  std::max(std::abs(expected) / 16, scale * std::ldexp(1.0F, -10)));
      }
    }
  };
  expect_close(made.layers[0].q_proj, wide.layers[0].q_proj);
  expect_close(made.layers[0].experts[2].down_proj, wide.layers[0].experts[2].down_proj);
  EXPECT_EQ(made.name_of(made.layers[0].q_proj).name, "model.layers.0.self_attn.q_proj.weight");
  EXPECT_FALSE(made.layers[0].experts[2].down_proj.is_beside_wider);
  for (const WeightView& kept : {made.embedding, made.lm_head, made.final_norm,
                                 made.layers[0].router, made.layers[0].input_norm})
    EXPECT_NE(kept.dtype, Dtype::f8);

  const WeightView& k = made.layers[0].k_proj;  // some rows alone
  made.fill(k.rows(3, 2));
  const std::vector<std::byte> two(k.data + 3 * k.n_cols, k.data + 5 * k.n_cols);
  made.fill(k);
  EXPECT_TRUE(std::equal(two.begin(), two.end(), k.data + 3 * k.n_cols));
}

}  // namespace
}  // namespace starattn
