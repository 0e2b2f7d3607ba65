// SPDX-License-Identifier: Apache-2.0
// config.json as transformers reads it, and what it means to transformers where it says nothing
// (tests/golden/models, made by scripts/make_model_goldens.py).
#include <cmath>

#include "model/rope.h"
#include "small_config.h"

namespace starattn {
namespace {

TEST(GoldenConfigs, AreReadAsTheyWereMade) {
  struct Expected {
    const char* folder;
    Family family;
    Dtype dtype;
    std::int64_t hidden_size, n_kv_heads, head_dim;
    bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
    RopeKind rope;
    double theta, factor;
    std::vector<Token> eos;
  };
  const Expected all[] = {{"llama31",
                           Family::llama,
                           Dtype::bf16,
                           48,
                           2,
                           16,
                           true,
                           false,
                           false,
                           false,
                           false,
                           RopeKind::llama3,
                           5e5,
                           8,
                           {2}},
                          {"llama2_linear",
                           Family::llama,
                           Dtype::f32,
                           64,
                           4,
                           16,
                           false,
                           false,
                           false,
                           false,
                           false,
                           RopeKind::linear,
                           1e4,
                           4,
                           {2}},
                          {"llama_yarn_bias",
                           Family::llama,
                           Dtype::f32,
                           48,
                           2,
                           32,
                           false,
                           true,
                           true,
                           true,
                           false,
                           RopeKind::yarn,
                           1e4,
                           8,
                           {2}},
                          {"qwen2",
                           Family::qwen2,
                           Dtype::f32,
                           64,
                           2,
                           16,
                           false,
                           true,
                           false,
                           false,
                           false,
                           RopeKind::standard,
                           1e6,
                           1,
                           {}},
                          {"qwen3",
                           Family::qwen3,
                           Dtype::f16,
                           48,
                           2,
                           32,
                           true,
                           false,
                           false,
                           false,
                           true,
                           RopeKind::standard,
                           1e4,
                           1,
                           {}},
                          {"mistral",
                           Family::mistral,
                           Dtype::f32,
                           48,
                           2,
                           16,
                           false,
                           false,
                           false,
                           false,
                           false,
                           RopeKind::standard,
                           1e4,
                           1,
                           {2}}};
  for (const Expected& e : all) {
    SCOPED_TRACE(e.folder);
    const ModelConfig c = read_model_config(kGoldenModels + e.folder);
    EXPECT_EQ(c.family, e.family);
    EXPECT_EQ(c.dtype, e.dtype);
    EXPECT_EQ(c.vocab_size, 160);
    EXPECT_EQ(c.intermediate_size, 96);
    EXPECT_EQ(c.n_layers, 3);
    EXPECT_EQ(c.n_heads, 4);
    EXPECT_EQ(c.max_positions, 4096);
    EXPECT_EQ(c.hidden_size, e.hidden_size);
    EXPECT_EQ(c.n_kv_heads, e.n_kv_heads);
    EXPECT_EQ(c.head_dim, e.head_dim);
    EXPECT_EQ(c.rms_norm_eps, e.rope == RopeKind::linear ? 1e-5 : 1e-6);
    EXPECT_EQ(c.tied_embeddings, e.tied);
    EXPECT_EQ(c.qkv_bias, e.qkv_bias);
    EXPECT_EQ(c.o_bias, e.o_bias);
    EXPECT_EQ(c.mlp_bias, e.mlp_bias);
    EXPECT_EQ(c.qk_norm, e.qk_norm);
    EXPECT_EQ(c.rope.kind, e.rope);
    EXPECT_EQ(c.rope.theta, e.theta);
    EXPECT_EQ(c.rope.factor, e.factor);
    EXPECT_EQ(c.eos_tokens, e.eos);
    EXPECT_EQ(c.bos_token, e.eos.empty() ? -1 : 1);
  }
}

std::vector<bool> mixtures_of(const ModelConfig& config) {
  std::vector<bool> layers;
  for (const LayerConfig& layer : config.layers) layers.push_back(layer.is_mixture);
  return layers;
}

TEST(GoldenConfigs, SayWhichLayersAreMixtures) {
  const ModelConfig listed = read_model_config(kGoldenModels + "qwen3_moe");
  EXPECT_EQ(listed.family, Family::qwen3_moe);
  EXPECT_TRUE(listed.qk_norm);
  EXPECT_EQ(listed.mixture.n_experts, 8);
  EXPECT_EQ(listed.mixture.n_chosen, 3);
  EXPECT_EQ(listed.mixture.expert_size, 32);
  EXPECT_TRUE(listed.mixture.routing.renormalise);
  EXPECT_EQ(mixtures_of(listed), (std::vector<bool>{true, false, true}));
  const ModelConfig stepped = read_model_config(kGoldenModels + "qwen3_moe_step");
  EXPECT_FALSE(stepped.mixture.routing.renormalise);
  EXPECT_EQ(mixtures_of(stepped), (std::vector<bool>{false, true, false}));
}

TEST(GoldenConfigs, HaveTheMultipliersOfGranite) {
  const ModelConfig c = read_model_config(kGoldenModels + "granite");
  EXPECT_EQ(c.family, Family::granite);
  EXPECT_EQ(c.multipliers.embedding, 3);
  EXPECT_EQ(c.multipliers.residual, 0.22);
  EXPECT_EQ(c.multipliers.attention, 0.4);
  EXPECT_EQ(c.multipliers.logits, 2);
  EXPECT_EQ(read_model_config(kGoldenModels + "llama31").multipliers.attention, 0);
}

TEST(GoldenConfigs, OfPicturesSayInTheirTextPartWhatTheTextIs) {
  const ModelConfig mistral = read_model_config(kGoldenModels + "mistral3");
  EXPECT_EQ(mistral.family, Family::mistral);
  EXPECT_EQ(mistral.architecture, "Mistral3ForConditionalGeneration");
  EXPECT_EQ(mistral.hidden_size, 48);
  EXPECT_EQ(mistral.eos_tokens, std::vector<Token>{2});
  EXPECT_FALSE(mistral.tied_embeddings);
  const ModelConfig ministral = read_model_config(kGoldenModels + "ministral3");
  EXPECT_EQ(ministral.family, Family::ministral3);
  EXPECT_EQ(ministral.rope.kind, RopeKind::yarn);
  EXPECT_EQ(ministral.rope.query_beta, 0.4);
  EXPECT_EQ(query_scale(ministral.rope, 31), 1);
  EXPECT_FLOAT_EQ(query_scale(ministral.rope, 64), 1 + 0.4F * std::log(3.0F));
  const ModelConfig qwen = read_model_config(kGoldenModels + "qwen3_vl");
  EXPECT_EQ(qwen.family, Family::qwen3_vl);
  EXPECT_EQ(qwen.rope.theta, 5e6);
  EXPECT_TRUE(qwen.tied_embeddings);  // said outside the text part
  EXPECT_EQ(qwen.dtype, Dtype::bf16);
}

// The number of values in transformers' parameters, by whose names end so.
std::int64_t n_values(const Json& shapes, const std::string& ending, std::int64_t n_layers) {
  std::int64_t sum = 0;
  for (const auto& [name, shape] : shapes.items()) {
    std::int64_t n = name.find(".layers.") == std::string::npos ? 1 : n_layers;
    for (const Json& size : shape) n *= size.get<std::int64_t>();
    if (name.ends_with(ending)) sum += n;
  }
  return sum;
}

TEST(Defaults, OfThetaAreTheFamilys) {
  EXPECT_EQ(read_config(small_config({{"architectures", {"GptOssForCausalLM"}},
                                      {"model_type", "gpt_oss"},
                                      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 32}}}}))
                .rope.theta,
            150000);
  const Json text = small_config({{"architectures", nullptr}, {"model_type", "qwen3_vl_text"}});
  EXPECT_EQ(read_config({{"architectures", {"Qwen3VLForConditionalGeneration"}},
                         {"model_type", "qwen3_vl"},
                         {"text_config", text}})
                .rope.theta,
            500000);
}

// To families that have a head_dim of their own as well.
TEST(Defaults, OfHeadDimAreNotMeantByNull) {
  Json config =
      small_config({{"architectures", {"SeedOssForCausalLM"}}, {"model_type", "seed_oss"}});
  EXPECT_EQ(read_config(config).head_dim, 128);
  config["head_dim"] = nullptr;
  EXPECT_EQ(read_config(config).head_dim, 16);
  config["hidden_size"] = 66;
  expect_refused([&] { read_config(config); }, Exit::bad_data, {"'hidden_size'", "66"});
}

TEST(Defaults, AreThoseOfTransformers) {
  const Json families = read_json_file(kGoldenModels + "defaults.json")["families"];
  ASSERT_EQ(families.size(), 14U);
  for (const auto& [name, golden] : families.items()) {
    SCOPED_TRACE(name);
    const Json& found = golden["found"];
    const ModelConfig c = read_config(golden["config"]);
    const Json window = found["sliding_window"].is_null() ? Json(0) : found["sliding_window"];
    EXPECT_EQ(c.widest_window(), window);
    EXPECT_EQ(c.n_windows(), window == 0 ? 0 : c.n_layers);
    EXPECT_EQ(c.n_kv_heads, found["num_key_value_heads"]);
    EXPECT_EQ(c.head_dim, found["head_dim"].is_null() ? Json(4096 / 32) : found["head_dim"]);
    EXPECT_EQ(c.max_positions, found["max_position_embeddings"]);
    EXPECT_EQ(c.rms_norm_eps, found["rms_norm_eps"]);
    EXPECT_EQ(c.tied_embeddings, found["tie_word_embeddings"]);
    EXPECT_EQ(c.bos_token, found["bos_token_id"].is_null() ? Json(-1) : found["bos_token_id"]);
    EXPECT_EQ(Json(c.eos_tokens), found["eos_token_id"].is_null()
                                      ? Json::array()
                                      : Json::array({found["eos_token_id"]}));
    EXPECT_EQ(c.rope.theta, golden["rope_theta"]);

    const Json& shapes = golden["shapes"];
    // Not of layers that differ, nor of corrections, which are no parameters there.
    const bool are_alike = c.n_mixtures() == 0 || c.n_mixtures() == c.n_layers;
    if (are_alike && !c.mixture.routing.is_sigmoid) {
      EXPECT_EQ(n_parameters(c), n_values(shapes, "", c.n_layers));
    }
    EXPECT_EQ(c.qkv_bias, n_values(shapes, "q_proj.bias", 1) > 0);
    EXPECT_EQ(c.qk_norm, n_values(shapes, "q_norm.weight", 1) > 0);
    if (c.family == Family::phi3) {  // all in one
      EXPECT_EQ((c.q_width() + 2 * c.kv_width()) * c.hidden_size,
                n_values(shapes, "qkv_proj.weight", 1));
      continue;
    }
    EXPECT_EQ(c.q_width() * c.hidden_size, n_values(shapes, "q_proj.weight", 1));
    EXPECT_EQ(c.kv_width() * c.hidden_size, n_values(shapes, "k_proj.weight", 1));
  }
}

}  // namespace
}  // namespace starattn
