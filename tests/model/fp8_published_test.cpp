// SPDX-License-Identifier: Apache-2.0
// FP8 weights in the shapes, and with the words, of those who publish them.
#include "tampered_model.h"

namespace starattn {
namespace {

// A folder whose FP8 matrices have scales of ones in the shape that a publisher writes, with the
// tensors beside them that we have no use for, and its words for them.
struct Published {
  const char* name;
  const char* config;  // quantization_config
  const char* scale;   // behind "....weight"
  const char* dtype;
  std::vector<std::int64_t> (*shape)(std::int64_t n_out, std::int64_t n_in);
  std::vector<const char*> beside;      // of every matrix, in place of "weight"
  std::int64_t block_rows, block_cols;  // of k_proj [32, 48]
};
constexpr const char* kDynamicGroup = R"({"config_groups": {"group_0": {
    "format": "float-quantized", "input_activations": {"actorder": null, "block_structure": null,
    "dynamic": true, "group_size": null, "num_bits": 8, "observer": null, "observer_kwargs": {},
    "strategy": "token", "symmetric": true, "type": "float"}, "output_activations": null,
    "targets": ["Linear"], "weights": {"actorder": null, "block_structure": null, "dynamic": false,
    "group_size": null, "num_bits": 8, "observer": "minmax", "observer_kwargs": {},
    "strategy": "channel", "symmetric": true, "type": "float"}}}, "format": "float-quantized",
    "global_compression_ratio": null, "ignore": ["lm_head"], "kv_cache_scheme": null,
    "quant_method": "compressed-tensors", "quantization_status": "compressed"})";
constexpr const char* kStaticGroup = R"({"config_groups": {"group_0": {
    "input_activations": {"dynamic": false, "num_bits": 8, "strategy": "tensor", "symmetric": true,
    "type": "float"}, "targets": ["Linear"], "weights": {"dynamic": false, "num_bits": 8,
    "strategy": "tensor", "symmetric": true, "type": "float"}}}, "format": "float-quantized",
    "ignore": ["lm_head"], "kv_cache_scheme": {"dynamic": false, "num_bits": 8,
    "strategy": "tensor", "symmetric": true, "type": "float"},
    "quant_method": "compressed-tensors", "quantization_status": "frozen"})";
constexpr const char* kBlockGroup = R"({"config_groups": {"group_0": {
    "format": "float-quantized", "input_activations": {"dynamic": true, "group_size": 128,
    "num_bits": 8, "strategy": "group", "symmetric": true, "type": "float"}, "targets": ["Linear"],
    "weights": {"block_structure": [128, 128], "dynamic": false, "group_size": null, "num_bits": 8,
    "strategy": "block", "symmetric": true, "type": "float"}}}, "format": "float-quantized",
    "ignore": ["lm_head", "re:.*gate$"], "quant_method": "compressed-tensors",
    "quantization_status": "compressed"})";
constexpr const char* kMxGroup = R"({"config_groups": {"group_0": {
    "format": "mxfp8-quantized", "input_activations": {"dynamic": true, "group_size": 32,
    "num_bits": 8, "scale_dtype": "torch.uint8", "strategy": "group", "symmetric": true,
    "type": "float"}, "output_activations": null, "targets": ["Linear"], "weights":
    {"block_structure": null, "dynamic": false, "group_size": 32, "num_bits": 8,
    "scale_dtype": "torch.uint8", "strategy": "group", "symmetric": true, "type": "float"}}},
    "format": "mxfp8-quantized", "ignore": ["lm_head"], "quant_method": "compressed-tensors",
    "sparsity_config": {}, "transform_config": {}, "version": "0.19.0"})";
// Neither the cache nor what goes into attention is any of the weights' business.
constexpr const char* kAttentionGroup = R"({"config_groups": {"group_0": {"format": "dense",
    "input_activations": {"dynamic": false, "num_bits": 8, "strategy": "tensor", "symmetric": true,
    "type": "float"}, "targets": ["LlamaAttention"], "weights": null}, "group_1": {
    "format": "float-quantized", "targets": ["Linear"], "weights": {"dynamic": false,
    "num_bits": 8, "strategy": "channel", "symmetric": true, "type": "float"}}}, "ignore":
    ["lm_head"], "kv_cache_scheme": {"dynamic": false, "num_bits": 8, "strategy": "tensor",
    "type": "float"}, "quant_method": "compressed-tensors", "version": "0.19.0"})";
constexpr auto kOne = [](std::int64_t, std::int64_t) { return std::vector<std::int64_t>{1}; };
constexpr auto kNoShape = [](std::int64_t, std::int64_t) { return std::vector<std::int64_t>{}; };
constexpr auto kRows = [](std::int64_t n_out, std::int64_t) { return std::vector{n_out}; };
constexpr auto kColumn = [](std::int64_t n_out, std::int64_t) {
  return std::vector<std::int64_t>{n_out, 1};
};
constexpr auto kBlocks128 = [](std::int64_t n_out, std::int64_t n_in) {
  return std::vector{(n_out + 127) / 128, (n_in + 127) / 128};
};
constexpr auto kRuns32 = [](std::int64_t n_out, std::int64_t n_in) {
  return std::vector{n_out, (n_in + 31) / 32};
};
// Blocks of 16 rows, without the dimension of the one block of columns.
constexpr auto kSqueezed = [](std::int64_t n_out, std::int64_t) {
  return std::vector{(n_out + 15) / 16};
};
constexpr auto kSpread = [](std::int64_t n_out, std::int64_t n_in) {
  return std::vector{(n_out + 127) / 128, std::int64_t{1}, (n_in + 127) / 128, std::int64_t{1}};
};

TEST(Fp8Weights, AreReadAsTheyArePublished) {
  const Published all[] = {
      {"compressed-tensors, a scale a row", kDynamicGroup, "_scale", "BF16", kColumn, {}, 1, 48},
      {"compressed-tensors, one scale",
       kStaticGroup,
       "_scale",
       "BF16",
       kOne,
       {"input_scale"},
       32,
       48},
      {"compressed-tensors, MXFP8", kMxGroup, "_scale", "U8", kRuns32, {}, 1, 32},
      {"compressed-tensors, a group of activations alone",
       kAttentionGroup,
       "_scale",
       "BF16",
       kColumn,
       {"k_scale", "k_zero_point"},
       1,
       48},
      {"compressed-tensors, blocks", kBlockGroup, "_scale", "BF16", kBlocks128, {}, 128, 128},
      {"fp8, blocks",
       R"({"activation_scheme": "dynamic", "fmt": "e4m3", "modules_to_not_convert": ["lm_head",
           "model.layers.0.input_layernorm"], "quant_method": "fp8", "weight_block_size": [128, 128]})",
       "_scale_inv",
       "BF16",
       kBlocks128,
       {},
       128,
       128},
      {"fp8, powers of two, without dimensions of one",
       R"({"activation_scheme": "dynamic", "dequantize": false, "modules_to_convert": null,
           "modules_to_not_convert": null, "quant_method": "fp8", "scale_fmt": "ue8m0",
           "weight_block_size": [16, 256]})",
       "_scale_inv",
       "F8_E8M0",
       kSqueezed,
       {},
       16,
       256},
      {"fp8 of Mistral, one scale",
       R"({"activation_scheme": "static", "dequantize": false, "modules_to_not_convert":
           ["model.vision_tower", "model.multi_modal_projector", "lm_head"], "quant_method": "fp8",
           "weight_block_size": null})",
       "_scale_inv",
       "BF16",
       kNoShape,
       {"activation_scale"},
       32,
       48},
      {"fp8 of AutoFP8, one scale",
       R"({"activation_scheme": "static", "ignored_layers": ["lm_head"], "quant_method": "fp8"})",
       "_scale",
       "F32",
       kNoShape,
       {"input_scale"},
       32,
       48},
      {"fbgemm",
       R"({"activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"],
           "quant_method": "fbgemm_fp8"})",
       "_scale",
       "F32",
       kColumn,
       {"input_scale_ub"},
       1,
       48},
      {"Quark, one scale",
       R"({"algo_config": null, "exclude": ["lm_head"], "export": {"kv_cache_group": ["*k_proj",
           "*v_proj"], "min_kv_scale": 0.0, "pack_method": "reorder", "weight_format":
           "real_quantized", "weight_merge_groups": null}, "global_quant_config": {"bias": null,
           "input_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, "weight": {"ch_axis":
           null, "dtype": "fp8_e4m3", "group_size": null, "qscheme": "per_tensor", "symmetric":
           true}}, "layer_quant_config": {"*k_proj": {"output_tensors": {"dtype": "fp8_e4m3"},
           "weight": {"ch_axis": null, "dtype": "fp8_e4m3", "qscheme": "per_tensor"}}},
           "layer_type_quant_config": {}, "quant_method": "quark", "version": "0.13"})",
       "_scale",
       "BF16",
       kNoShape,
       {"input_scale", "output_scale"},
       32,
       48},
      {"Quark, a scale a row",
       R"({"global_quant_config": {"weight": {"ch_axis": 0, "dtype": "fp8_e4m3", "qscheme":
           "per_channel", "symmetric": true}}, "quant_method": "quark"})",
       "_scale",
       "BF16",
       kRows,
       {},
       1,
       48},
      {"ModelOpt, one scale",
       R"({"config_groups": {"group_0": {"input_activations": {"dynamic": false, "num_bits": 8,
           "type": "float"}, "weights": {"dynamic": false, "num_bits": 8, "type": "float"}}},
           "ignore": ["lm_head"], "kv_cache_scheme": {"dynamic": false, "num_bits": 8,
           "type": "float"}, "producer": {"name": "modelopt", "version": "0.29.0"},
           "quant_algo": "FP8", "quant_method": "modelopt"})",
       "_scale",
       "F32",
       kNoShape,
       {"input_scale", "k_scale", "v_scale"},
       32,
       48},
      {"ModelOpt, a scale a row",
       R"({"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "quant_method": "modelopt"})",
       "_scale",
       "F32",
       kRows,
       {},
       1,
       48},
      {"ModelOpt, blocks",
       R"({"quant_algo": "FP8_PB_WO", "quant_method": "modelopt"})",
       "_scale",
       "F32",
       kSpread,
       {},
       128,
       128},
      {"ModelOpt, blocks in small letters",
       R"({"ignore": ["lm_head", "model.embed_tokens"], "quant_algo": "fp8_pb_wo",
           "producer": {"name": "modelopt", "version": "0.47.0"}, "quant_method": "modelopt"})",
       "_scale",
       "F32",
       kSpread,
       {},
       128,
       128},
      {"ModelOpt, MXFP8",
       R"({"quant_algo": "MXFP8", "quant_method": "modelopt"})",
       "_scale",
       "U8",
       kRuns32,
       {},
       1,
       32}};
  const ModelWeights given = open_model(kGoldenModels + "llama_fp8_channel");
  for (const Published& one : all) {
    SCOPED_TRACE(one.name);
    TamperedModel folder("llama_fp8_channel");
    folder.config()["quantization_config"] = Json::parse(one.config);
    for (const WeightView& w : given.all()) {
      if (w.dtype != Dtype::f8) continue;
      const std::string name = given.name_of(w).name;
      const std::vector<std::int64_t> shape = one.shape(w.n_rows, w.n_cols);
      std::size_t n = 1;
      for (const std::int64_t size : shape) n *= static_cast<std::size_t>(size);
      const std::string dtype = one.dtype;
      std::string scales;
      for (std::size_t i = 0; i < n; ++i) {
        scales += dtype == "F32"    ? bytes_of({1})
                  : dtype == "BF16" ? std::string("\x80\x3f", 2)
                                    : std::string("\x7f");
      }
      folder.rename(name + "_scale", "unused." + name);
      folder.append(name + one.scale, one.dtype, shape, scales);
      for (const char* other : one.beside)
        folder.append(name.substr(0, name.rfind("weight")) + other, "F32", Json::array(),
                      bytes_of({3}));
    }
    const ModelWeights weights = folder.open_it();
    const WeightView& k = weights.layers[0].k_proj;
    EXPECT_EQ(k.dtype, Dtype::f8);
    EXPECT_EQ(k.scales.block_rows, one.block_rows);
    EXPECT_EQ(k.scales.block_cols, one.block_cols);
    EXPECT_EQ(k.scales_of_row(31)[0], 1);
  }
}

}  // namespace
}  // namespace starattn
