// SPDX-License-Identifier: Apache-2.0
// Dense logits equal to Hugging Face transformers in fp32, for every model family
// (tests/golden/models).
#include <gtest/gtest.h>

#include <cmath>

#include "../star/tiny_model.h"
#include "base/json.h"
#include "mpi/communicator.h"
#include "star/encode.h"

namespace starattn {
namespace {

class GoldenLogits : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenLogits, AgreeWithTransformers) {
  const std::string name = GetParam();
  const std::string golden_folder = std::string(STARATTN_SOURCE_DIR "/tests/golden/models/") + name;
  const std::string model_folder =
      name == "demo" ? STARATTN_SOURCE_DIR "/data/demo-model" : golden_folder;
  const Json golden = read_json_file(golden_folder + "/golden.json");

  const ModelConfig config = read_model_config(model_folder);
  const ModelWeights weights = ModelWeights::open(model_folder, config);
  for (const WeightView& weight : weights.all())
    if (weights.is_made(weight)) weights.fill(weight);
  const auto backend = make_cpu_backend(1);
  Decoder decoder(config, weights, *backend, std::max(backend->chunk_rows(), Answerer::kMaxRows));
  const Communicator world = Communicator::world();

  const Rope rope(config.rope, config.head_dim);
  const auto frequencies = golden["inv_freq"].get<std::vector<double>>();
  ASSERT_EQ(std::ssize(rope.frequencies()), config.head_dim / 2);
  ASSERT_EQ(std::ssize(frequencies), config.head().rotary / 2);
  for (std::size_t i = frequencies.size(); i < rope.frequencies().size(); ++i)
    EXPECT_EQ(rope.frequencies()[i], 0);
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    EXPECT_NEAR(rope.frequencies()[i] / frequencies[i], 1, 1e-6);
  }
  EXPECT_NEAR(rope.attention_scaling(), golden["attention_scaling"].get<double>(), 1e-6);

  // The context takes the first two thirds; the logits asked for are the query's last three rows.
  const auto tokens = golden["tokens"].get<std::vector<Token>>();
  const auto n_context = static_cast<std::ptrdiff_t>(tokens.size() * 2 / 3);
  const std::vector<Token> context(tokens.begin(), tokens.begin() + n_context);
  const std::vector<Token> query(tokens.begin() + n_context, tokens.end());
  for (const Attention attention : {Attention::dense, Attention::ring}) {
    PlanRequest request;
    request.attention = attention;
    const BlockPlan plan =
        BlockPlan::make(request, n_context, world.size(), config.widest_window());
    Encoder encoder(decoder, world);
    const DocumentKv kv = encoder.encode(plan, context);
    QueryExchange exchange = Answerer::exchange(decoder, world);
    Answerer answerer(decoder, exchange, kv, {});
    const std::vector<float> logits = answerer.logits_of(query, 3);
    if (!world.is_root()) continue;

    double worst = 0;
    double scale = 0;
    for (std::size_t row = 0; row < 3; ++row) {
      const auto expected = golden["logits"][row].get<std::vector<double>>();
      ASSERT_EQ(logits.size(), 3 * expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        worst = std::max(worst, std::abs(logits[row * expected.size() + i] - expected[i]));
        scale = std::max(scale, std::abs(expected[i]));
      }
    }
    EXPECT_LE(worst / scale, 1e-4) << name;
    RecordProperty("relative_difference", std::to_string(worst / scale));
    std::printf("%s: max |difference| / max |logit| = %.2e\n", name.c_str(), worst / scale);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, GoldenLogits,
    ::testing::Values("llama31", "llama2_linear", "llama_yarn_bias", "qwen2", "qwen3", "qwen3_moe",
                      "qwen3_moe_step", "qwen2_moe", "minimax_m2", "glm4_moe", "granite",
                      "seed_oss", "phi3", "phi4_mini", "mistral3", "ministral3", "qwen3_vl",
                      "qwen3_vl_moe", "qwen3_moe_fp8", "llama_fp8_channel", "glm4_moe_fp8",
                      "mistral", "mistral_window", "qwen2_window", "qwen3_window", "smollm3",
                      "smollm3_window", "mixtral", "olmo2", "olmo3", "gpt_oss", "gpt_oss_mxfp4",
                      "transformers_ue8m0", "transformers_qwen3_vl_moe", "llmcompressor_groups",
                      "llmcompressor_mxfp8", "llmcompressor_mixtral", "llmcompressor_gpt_oss",
                      "modelopt_gpt_oss", "modelopt_mixed", "demo"),
    [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace starattn
