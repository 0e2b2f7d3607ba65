// SPDX-License-Identifier: Apache-2.0
// What families say of their layers: windows, RoPE and mixtures, one by one.
#include "model/config.h"

#include "small_config.h"

namespace starattn {
namespace {

TEST(GptOss, HasWindowsInEverySecondLayer) {
  const Json rope = {{"rope_type", "yarn"},
                     {"factor", 32.0},
                     {"truncate", false},
                     {"rope_theta", 150000},
                     {"original_max_position_embeddings", 4096}};
  const Json published = {
      {"num_hidden_layers", 3}, {"rope_parameters", rope}, {"max_position_embeddings", 131072},
      {"num_local_experts", 8}, {"experts_per_token", 3},  {"hidden_size", 64}};
  const auto with_changes = [&](const Json& changes) {
    Json all = published;
    all.update(changes);
    return family_config("gpt_oss", "GptOssForCausalLM", all);
  };
  const ModelConfig c = read_config(with_changes(Json::object()));
  EXPECT_EQ(windows_of(c), (std::vector<std::int64_t>{128, 0, 128}));
  EXPECT_EQ(c.n_mixtures(), 3);
  EXPECT_EQ(c.mixture.n_experts, 8);
  EXPECT_EQ(c.mixture.n_chosen, 3);
  EXPECT_EQ(c.mixture.expert_size, c.intermediate_size);
  EXPECT_EQ(c.mixture.unit, (GatedUnit{1.702F, 1, 7}));
  EXPECT_TRUE(c.has_sinks && c.qkv_bias && c.o_bias && c.mixture.has_biases);
  EXPECT_FALSE(c.rope.truncate);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.max_positions, 131072);
  EXPECT_NE(canonical_text(c).find("unit=1.702"), std::string::npos);
  const Json mxfp4 = {{"quantization_config", {{"quant_method", "mxfp4"}}}};
  EXPECT_EQ(read_config(with_changes(mxfp4)).fp8.scales, Fp8Config::Scales::none);
  Json llama = small_config(mxfp4);
  expect_refused([&] { read_config(llama); }, Exit::bad_data, {"quant_method", "mxfp4"});
  for (const auto& [key, value] : {std::pair<const char*, Json>{"swiglu_limit", 0},
                                   {"swiglu_alpha", -1},
                                   {"num_local_experts", 0},
                                   {"experts_per_token", 9},
                                   {"sliding_window", nullptr}}) {
    expect_refused([&] { read_config(with_changes({{key, value}})); }, Exit::bad_data, {key});
  }
}

std::vector<bool> without_rope(const ModelConfig& config) {
  std::vector<bool> layers;
  for (const LayerConfig& layer : config.layers)
    layers.push_back(layer.has_other_rope && config.other_rope.kind == RopeKind::none);
  return layers;
}

Json smollm3(Json changes) {
  const Json four = {{"num_hidden_layers", 4}, {"vocab_size", 100}};
  changes.update(four);
  return family_config("smollm3", "SmolLM3ForCausalLM", changes);
}

// transformers: a 1 is a layer with RoPE, and without a list every fourth has none.
TEST(SmolLM3, HasLayersWithoutRope) {
  using Layers = std::vector<bool>;
  const auto layers = [](const Json& changes) {
    return without_rope(read_config(smollm3(changes)));
  };
  EXPECT_EQ(layers(Json::object()), (Layers{false, false, false, true}));
  EXPECT_EQ(layers({{"no_rope_layer_interval", 2}}), (Layers{false, true, false, true}));
  EXPECT_EQ(layers({{"no_rope_layer_interval", 1}}), (Layers{true, true, true, true}));
  EXPECT_EQ(layers({{"no_rope_layer_interval", 1024}}), (Layers{false, false, false, false}));
  EXPECT_EQ(layers({{"no_rope_layers", {0, 1, 1, 0}}}), (Layers{true, false, false, true}));
  EXPECT_EQ(layers({{"no_rope_layers", nullptr}}), (Layers{false, false, false, true}));
  const Json both = {{"no_rope_layers", {1, 1, 1, 1}}, {"no_rope_layer_interval", 2}};
  EXPECT_EQ(layers(both), (Layers{false, false, false, false}));

  const ModelConfig c = read_config(smollm3(Json::object()));
  EXPECT_EQ(c.rope.theta, 2e6);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_EQ(c.n_windows(), 0);
  EXPECT_NE(describe(c).find("RoPE 2000000 (no RoPE in 1 of 4 layers)"), std::string::npos)
      << describe(c);
}

TEST(SmolLM3, HasWindowsWhereItHasNoRope) {
  const Json sliding = {{"use_sliding_window", true}, {"sliding_window", 16}};
  EXPECT_EQ(windows_of(read_config(smollm3(sliding))), (std::vector<std::int64_t>{0, 0, 0, 16}));
  Json listed = sliding;
  listed["layer_types"] = {"sliding_attention", "full_attention", "full_attention",
                           "full_attention"};
  EXPECT_EQ(windows_of(read_config(smollm3(listed))), (std::vector<std::int64_t>{16, 0, 0, 0}));
  EXPECT_EQ(without_rope(read_config(smollm3(listed))),
            (std::vector<bool>{false, false, false, true}));
  const Json unused = {{"sliding_window", 16}};
  EXPECT_EQ(read_config(smollm3(unused)).n_windows(), 0);
}

// transformers takes it from whatever rope_parameters there are, and other families ignore it.
TEST(Ministral3, ScalesQueriesBesideAnyRope) {
  const Json rope = {{"rope_type", "default"},
                     {"rope_theta", 1e6},
                     {"llama_4_scaling_beta", 0.25},
                     {"original_max_position_embeddings", 512}};
  const Json ministral3 = {{"architectures", {"Ministral3ForCausalLM"}},
                           {"model_type", "ministral3"},
                           {"rope_parameters", rope}};
  const ModelConfig c = read_config(small_config(ministral3));
  EXPECT_EQ(c.rope.kind, RopeKind::standard);
  EXPECT_TRUE(c.scales_queries());
  EXPECT_EQ(c.rope.query_beta, 0.25);
  EXPECT_EQ(c.rope.original_positions, 512);
  EXPECT_FALSE(read_config(small_config({{"rope_parameters", rope}})).scales_queries());
}

TEST(Mixtral, IsAMixtureInEveryLayer) {
  const Json changes = {{"num_local_experts", 4}, {"num_experts_per_tok", 3}};
  const ModelConfig c = read_config(family_config("mixtral", "MixtralForCausalLM", changes));
  EXPECT_EQ(c.n_mixtures(), 2);
  EXPECT_EQ(c.mixture.n_experts, 4);
  EXPECT_EQ(c.mixture.n_chosen, 3);
  EXPECT_EQ(c.mixture.expert_size, c.intermediate_size);
  EXPECT_TRUE(c.mixture.routing.renormalise);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_EQ(c.n_windows(), 0);
  const ModelConfig absent =
      read_config(family_config("mixtral", "MixtralForCausalLM", Json::object()));
  EXPECT_EQ(absent.mixture.n_experts, 8);
  EXPECT_EQ(absent.mixture.n_chosen, 2);
}

TEST(Qwen2Moe, HasAnExpertThatEveryRowTakes) {
  const auto read = [](const Json& changes) {
    return read_config(family_config("qwen2_moe", "Qwen2MoeForCausalLM", changes));
  };
  const ModelConfig absent = read(Json::object());
  EXPECT_EQ(absent.mixture.n_experts, 60);
  EXPECT_EQ(absent.mixture.n_chosen, 4);
  EXPECT_EQ(absent.mixture.expert_size, 1408);
  EXPECT_EQ(absent.mixture.shared_size, 5632);
  EXPECT_TRUE(absent.mixture.weighs_shared && absent.qkv_bias);
  EXPECT_EQ(absent.mixture.routing, Routing{});
  const ModelConfig c = read({{"shared_expert_intermediate_size", 80},
                              {"mlp_only_layers", {0}},
                              {"norm_topk_prob", true},
                              {"qkv_bias", false}});
  EXPECT_TRUE(c.mixture.routing.renormalise && !c.qkv_bias);
  EXPECT_EQ(read({{"num_local_experts", 8}}).mixture.n_experts, 60);  // transformers: unknown
  EXPECT_EQ(c.dense_size(0), 96);
  EXPECT_EQ(c.dense_size(1), 80);
  EXPECT_EQ(c.widest_dense(), 96);
  EXPECT_EQ(absent.widest_dense(), 5632);
  EXPECT_NE(canonical_text(c),
            canonical_text(
                read({{"mlp_only_layers", {0}}, {"norm_topk_prob", true}, {"qkv_bias", false}})));
}

// transformers: every second layer from the first on, up to a number.
TEST(Qwen2Moe, HasWindowsInEverySecondOfTheFirstLayers) {
  const auto windows = [](Json changes) {
    changes["num_hidden_layers"] = 4;
    return windows_of(read_config(family_config("qwen2_moe", "Qwen2MoeForCausalLM", changes)));
  };
  using Windows = std::vector<std::int64_t>;
  const Json sliding = {{"use_sliding_window", true}, {"sliding_window", 16}};
  EXPECT_EQ(windows(sliding), (Windows{16, 0, 16, 0}));
  EXPECT_EQ(windows({{"sliding_window", 16}}), (Windows{0, 0, 0, 0}));
  Json first = sliding;
  first["max_window_layers"] = 2;
  EXPECT_EQ(windows(first), (Windows{16, 0, 0, 0}));
}

TEST(Glm4Moe, ChoosesByCorrectedSigmoids) {
  const auto read = [](const Json& changes) {
    return read_config(family_config("glm4_moe", "Glm4MoeForCausalLM", changes));
  };
  const ModelConfig absent = read(Json::object());
  EXPECT_EQ(absent.mixture.n_experts, 128);
  EXPECT_EQ(absent.mixture.n_chosen, 8);
  EXPECT_EQ(absent.mixture.expert_size, 1408);
  EXPECT_EQ(absent.mixture.shared_size, 1408);
  EXPECT_FALSE(absent.mixture.weighs_shared || absent.qk_norm || absent.qkv_bias);
  EXPECT_EQ(absent.mixture.routing, (Routing{.is_sigmoid = true, .renormalise = true}));
  EXPECT_EQ(absent.head(), (HeadSplit{16, 8}));
  EXPECT_TRUE(!absent.is_mixture(0) && absent.is_mixture(1));
  EXPECT_EQ(absent.n_guessing_layers, 1);

  const ModelConfig c = read({{"n_routed_experts", 16},
                              {"num_experts_per_tok", 3},
                              {"moe_intermediate_size", 32},
                              {"n_shared_experts", 2},
                              {"routed_scaling_factor", 2.5},
                              {"norm_topk_prob", false},
                              {"first_k_dense_replace", 0},
                              {"partial_rotary_factor", 1.0},
                              {"use_qk_norm", true},
                              {"attention_bias", true},
                              {"n_group", 2},
                              {"topk_group", 2}});
  EXPECT_EQ(c.mixture.n_experts, 16);
  EXPECT_EQ(c.mixture.n_chosen, 3);
  EXPECT_EQ(c.mixture.shared_size, 64);
  EXPECT_EQ(c.mixture.routing, (Routing{.is_sigmoid = true, .scale = 2.5F}));
  EXPECT_EQ(c.n_mixtures(), 2);
  EXPECT_EQ(c.head(), (HeadSplit{16, 16}));
  EXPECT_TRUE(c.qk_norm && c.qkv_bias && !c.o_bias);
  for (const int all : {2, 3}) EXPECT_EQ(read({{"first_k_dense_replace", all}}).n_mixtures(), 0);
  const Json whole = {{"partial_rotary_factor", nullptr}};
  EXPECT_EQ(read(whole).head(), (HeadSplit{16, 16}));
  EXPECT_NE(canonical_text(read({{"use_qk_norm", true}})), canonical_text(absent));
  EXPECT_EQ(read({{"n_shared_experts", 0}}).dense_size(1), 0);
}

TEST(MiniMaxM2, HasNormsOfAllHeads) {
  const auto read = [](const Json& changes) {
    return read_config(family_config("minimax_m2", "MiniMaxM2ForCausalLM", changes));
  };
  const ModelConfig absent = read(Json::object());
  EXPECT_TRUE(absent.qk_norm && absent.norms_all_heads && !absent.norms_outputs);
  EXPECT_EQ(absent.n_mixtures(), 2);
  EXPECT_EQ(absent.mixture.n_experts, 256);
  EXPECT_EQ(absent.mixture.n_chosen, 8);
  EXPECT_EQ(absent.mixture.expert_size, absent.intermediate_size);
  EXPECT_EQ(absent.mixture.routing, (Routing{.is_sigmoid = true, .renormalise = true}));
  EXPECT_EQ(absent.mixture.shared_size, 0);
  EXPECT_EQ(absent.head(), (HeadSplit{128, 128}));
  EXPECT_EQ(absent.rope.theta, 5e6);
  EXPECT_EQ(absent.max_positions, 4096);
  EXPECT_EQ(read({{"rotary_dim", 64}}).head(), (HeadSplit{128, 64}));
  EXPECT_EQ(read({{"rotary_dim", 64}, {"partial_rotary_factor", 0.25}}).head(),
            (HeadSplit{128, 32}));
}

TEST(Qwen3VlMoe, HasItsOwnMixture) {
  const auto read = [](const Json& changes) {
    Json text = small_config({{"architectures", nullptr},
                              {"model_type", "qwen3_vl_moe_text"},
                              {"mlp_only_layers", {0}},
                              {"norm_topk_prob", false}});
    text.update(changes);
    return read_config({{"architectures", {"Qwen3VLMoeForConditionalGeneration"}},
                        {"model_type", "qwen3_vl_moe"},
                        {"text_config", text}});
  };
  const ModelConfig c = read(Json::object());
  EXPECT_TRUE(!c.is_mixture(0) && c.is_mixture(1));
  EXPECT_EQ(c.mixture.n_experts, 60);
  EXPECT_EQ(c.mixture.n_chosen, 4);
  EXPECT_EQ(c.mixture.expert_size, 1408);
  EXPECT_TRUE(c.mixture.routing.renormalise);  // whatever the file says
  EXPECT_TRUE(c.qk_norm);
  EXPECT_EQ(c.rope.theta, 5e5);
  EXPECT_FALSE(c.tied_embeddings);
  const ModelConfig said =
      read({{"num_experts", 8}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 16}});
  EXPECT_EQ(said.mixture.n_experts, 8);
  EXPECT_EQ(said.mixture.n_chosen, 2);
  EXPECT_EQ(said.mixture.expert_size, 16);
}

// transformers: every fourth layer sees everything, and YaRN is for those alone.
TEST(Olmo3, HasWindowsInThreeOfFourLayersAndYarnInTheOthers) {
  const Json yarn = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 4096}};
  const auto olmo3 = [](Json changes) {
    changes["num_hidden_layers"] = 5;
    changes["sliding_window"] = 16;
    return read_config(family_config("olmo3", "Olmo3ForCausalLM", changes));
  };
  const ModelConfig c = olmo3({{"rope_scaling", yarn}});
  EXPECT_EQ(windows_of(c), (std::vector<std::int64_t>{16, 16, 16, 0, 16}));
  EXPECT_EQ(c.rope.kind, RopeKind::yarn);
  EXPECT_EQ(c.other_rope.kind, RopeKind::standard);
  EXPECT_EQ(c.rope.theta, 5e5);
  EXPECT_EQ(c.other_rope.theta, 5e5);
  EXPECT_EQ(c.max_positions, 16384);
  for (const LayerConfig& layer : c.layers) EXPECT_EQ(layer.has_other_rope, layer.has_window());
  EXPECT_TRUE(c.qk_norm && c.norms_outputs && c.norms_all_heads);
  EXPECT_FALSE(c.tied_embeddings);

  const Json by_type = {{"full_attention", yarn}, {"sliding_attention", nullptr}};
  EXPECT_EQ(canonical_text(olmo3({{"rope_parameters", by_type}})), canonical_text(c));
  EXPECT_EQ(olmo3(Json::object()).n_with_other_rope(), 0);
  // A window that no position reaches leaves the layers' RoPE as it is.
  const ModelConfig wide =
      read_config(family_config("olmo3", "Olmo3ForCausalLM", {{"rope_scaling", yarn}}));
  EXPECT_EQ(wide.n_windows(), 0);
  EXPECT_EQ(wide.n_with_other_rope(), 2);
  EXPECT_EQ(wide.max_positions, 4096);
}

// transformers 5 may write an entry for each of the layer_types.
TEST(RopeByLayerTypes, IsThatOfEachLayer) {
  const auto qwen3 = [](const Json& rope) {
    return read_config(family_config("qwen3", "Qwen3ForCausalLM",
                                     {{"sliding_window", 16},
                                      {"use_sliding_window", true},
                                      {"layer_types", {"sliding_attention", "full_attention"}},
                                      {"rope_parameters", rope}}));
  };
  const Json plain = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  Json yarn = plain;
  yarn.update({{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 4096}});
  const ModelConfig c = qwen3({{"full_attention", yarn}, {"sliding_attention", plain}});
  EXPECT_EQ(c.rope.kind, RopeKind::yarn);
  EXPECT_EQ(c.other_rope.kind, RopeKind::standard);
  EXPECT_EQ(c.other_rope.theta, 5e5);
  EXPECT_TRUE(c.layers[0].has_other_rope);
  EXPECT_FALSE(c.layers[1].has_other_rope);
  EXPECT_EQ(c.max_positions, 16384);
  EXPECT_NE(canonical_text(c).find(" other_rope=0 500000 "), std::string::npos);
  EXPECT_NE(canonical_text(c).find(" of=10"), std::string::npos);

  const ModelConfig same = qwen3({{"full_attention", plain}, {"sliding_attention", plain}});
  EXPECT_EQ(same.n_with_other_rope(), 0);
  EXPECT_EQ(canonical_text(same), canonical_text(qwen3(plain)));
  const ModelConfig absent = qwen3({{"full_attention", yarn}});
  EXPECT_EQ(absent.other_rope.theta, 1e4);
}

}  // namespace
}  // namespace starattn
