// SPDX-License-Identifier: Apache-2.0
// The golden models' weights and random ones: every tensor that the config asks for, and no other.
#include "model/weights.h"

#include <cstring>

#include "small_config.h"

namespace starattn {
namespace {

ModelWeights open(const std::string& folder) {
  return ModelWeights::open(folder, read_model_config(folder));
}

struct Shape {
  std::int64_t n_rows, n_cols;
};
void expect_shape(const WeightView& w, Shape shape, Dtype dtype) {
  ASSERT_TRUE(w);
  EXPECT_EQ(w.n_rows, shape.n_rows);
  EXPECT_EQ(w.n_cols, shape.n_cols);
  EXPECT_EQ(w.dtype, dtype);
}

// The optional tensors are there where the family has them, and only there.
void expect_layer(const LayerWeights& w, const ModelConfig& c, bool is_mixture, Dtype dtype) {
  const std::int64_t q = c.q_width(), kv = c.kv_width();
  const std::int64_t hidden = c.hidden_size;
  const std::int64_t inner = is_mixture ? c.mixture.shared_size : c.intermediate_size;
  const std::tuple<const char*, bool, WeightView, Shape> all[] = {
      {"input_norm", !c.norms_outputs, w.input_norm, {1, hidden}},
      {"q_proj", true, w.q_proj, {q, hidden}},
      {"k_proj", true, w.k_proj, {kv, hidden}},
      {"v_proj", true, w.v_proj, {kv, hidden}},
      {"o_proj", true, w.o_proj, {hidden, q}},
      {"post_attention_norm", !c.norms_outputs, w.post_attention_norm, {1, hidden}},
      {"attention_output_norm", c.norms_outputs, w.attention_output_norm, {1, hidden}},
      {"feed_forward_output_norm", c.norms_outputs, w.feed_forward_output_norm, {1, hidden}},
      {"gate_proj", inner > 0, w.gate_proj, {inner, hidden}},
      {"up_proj", inner > 0, w.up_proj, {inner, hidden}},
      {"down_proj", inner > 0, w.down_proj, {hidden, inner}},
      {"router", is_mixture, w.router, {c.mixture.n_experts, hidden}},
      {"shared_gate", is_mixture && c.mixture.weighs_shared, w.shared_gate, {1, hidden}},
      {"q_bias", c.qkv_bias, w.q_bias, {1, q}},
      {"k_bias", c.qkv_bias, w.k_bias, {1, kv}},
      {"v_bias", c.qkv_bias, w.v_bias, {1, kv}},
      {"o_bias", c.o_bias, w.o_bias, {1, hidden}},
      {"gate_bias", c.mlp_bias, w.gate_bias, {1, inner}},
      {"up_bias", c.mlp_bias, w.up_bias, {1, inner}},
      {"down_bias", c.mlp_bias, w.down_bias, {1, hidden}},
      {"q_norm", c.qk_norm, w.q_norm, {1, c.norms_all_heads ? q : c.head_dim}},
      {"k_norm", c.qk_norm, w.k_norm, {1, c.norms_all_heads ? kv : c.head_dim}}};
  for (const auto& [name, present, view, shape] : all) {
    SCOPED_TRACE(name);
    EXPECT_EQ(static_cast<bool>(view), present);
    if (present) expect_shape(view, shape, dtype);
  }
  const bool has_correction = is_mixture && c.mixture.routing.is_sigmoid;
  EXPECT_EQ(static_cast<bool>(w.correction), has_correction);
  if (has_correction) expect_shape(w.correction, {1, c.mixture.n_experts}, Dtype::f32);
  ASSERT_EQ(std::ssize(w.experts), is_mixture ? c.mixture.n_experts : 0);
  for (const Expert& expert : w.experts) {
    expect_shape(expert.gate_proj, {c.mixture.expert_size, hidden}, dtype);
    expect_shape(expert.up_proj, {c.mixture.expert_size, hidden}, dtype);
    expect_shape(expert.down_proj, {hidden, c.mixture.expert_size}, dtype);
  }
}

void expect_model(const ModelWeights& w, const ModelConfig& c, Dtype dtype) {
  ASSERT_EQ(w.layers.size(), static_cast<std::size_t>(c.n_layers));
  for (std::int64_t i = 0; i < c.n_layers; ++i)
    expect_layer(w.layers[static_cast<std::size_t>(i)], c, c.is_mixture(i), dtype);
  expect_shape(w.embedding, {c.vocab_size, c.hidden_size}, dtype);
  expect_shape(w.final_norm, {1, c.hidden_size}, dtype);
  expect_shape(w.lm_head, {c.vocab_size, c.hidden_size}, dtype);
  EXPECT_EQ(w.lm_head.data == w.embedding.data, c.tied_embeddings);
  std::uint64_t n = 0;  // tied ones once
  for (const WeightView& view : w.all()) n += static_cast<std::uint64_t>(view.n_rows * view.n_cols);
  EXPECT_EQ(n, n_parameters(c));
}

TEST(Weights, OfEveryFamilyHaveTheirShapes) {
  for (const char* name : kGoldenNames) {
    SCOPED_TRACE(name);
    const ModelConfig config = read_model_config(kGoldenModels + name);
    const ModelWeights weights = open(kGoldenModels + name);
    expect_model(weights, config, config.dtype);
    EXPECT_EQ(weights.files().size(), name == std::string("qwen2") ? 2U : 1U);
  }
}

TEST(Weights, OfExpertsAreTheirOwn) {
  const ModelWeights weights = open(kGoldenModels + "qwen3_moe");
  const SafetensorsFile file(kGoldenModels + "qwen3_moe/model.safetensors");
  for (const std::size_t e : {std::size_t{0}, std::size_t{5}}) {
    const Expert& expert = weights.layers[2].experts[e];
    for (const auto& [name, view] : {std::pair{"gate_proj", expert.gate_proj},
                                     {"up_proj", expert.up_proj},
                                     {"down_proj", expert.down_proj}}) {
      const TensorView* tensor =
          file.find(fmt::format("model.layers.2.mlp.experts.{}.{}.weight", e, name));
      ASSERT_TRUE(tensor) << name;
      ASSERT_EQ(tensor->n_bytes, view.n_bytes());
      EXPECT_EQ(std::memcmp(tensor->data, view.data, view.n_bytes()), 0) << name;
    }
  }
}

TEST(Weights, AreTheBytesOfTheirFile) {
  const ModelWeights weights = open(kGoldenModels + "llama_yarn_bias");
  const SafetensorsFile file(kGoldenModels + "llama_yarn_bias/model.safetensors");
  const std::pair<std::string, WeightView> all[] = {
      {"model.layers.1.self_attn.q_proj.weight", weights.layers[1].q_proj},
      {"model.layers.1.self_attn.k_proj.bias", weights.layers[1].k_bias},
      {"model.layers.2.mlp.up_proj.weight", weights.layers[2].up_proj},
      {"model.layers.0.input_layernorm.weight", weights.layers[0].input_norm},
      {"lm_head.weight", weights.lm_head}};
  for (const auto& [name, view] : all) {
    const TensorView* tensor = file.find(name);
    ASSERT_TRUE(tensor) << name;
    ASSERT_EQ(tensor->n_bytes, view.n_bytes()) << name;
    EXPECT_EQ(std::memcmp(tensor->data, view.data, view.n_bytes()), 0) << name;
  }
}

TEST(RandomWeights, HaveTheSameShapesAndDependOnTheSeed) {
  const ModelConfig config = read_model_config(kGoldenModels + "qwen2");
  const ModelWeights a = ModelWeights::random(config, Dtype::f32, 1);
  const ModelWeights again = ModelWeights::random(config, Dtype::f32, 1);
  const ModelWeights other = ModelWeights::random(config, Dtype::f32, 2);
  expect_model(a, config, Dtype::f32);
  expect_model(ModelWeights::random(config, Dtype::bf16, 1), config, Dtype::bf16);
  const auto same = [](const WeightView& x, const WeightView& y) {
    return std::memcmp(x.data, y.data, x.n_bytes()) == 0;
  };
  EXPECT_TRUE(same(a.layers[2].up_proj, again.layers[2].up_proj));
  EXPECT_FALSE(same(a.layers[2].up_proj, other.layers[2].up_proj));
  EXPECT_FALSE(same(a.layers[2].up_proj, a.layers[1].up_proj));
  EXPECT_TRUE(a.files().empty());
  expect_refused([&] { ModelWeights::random(config, Dtype::f16, 1); }, Exit::usage, {"f16"});
}

}  // namespace
}  // namespace starattn
