// SPDX-License-Identifier: Apache-2.0
// What config.json must not say: each refusal names the file and the key.
#include "small_config.h"

namespace starattn {
namespace {

void expect_bad(const Json& changes, std::initializer_list<std::string_view> words) {
  SCOPED_TRACE(to_line(changes));
  expect_refused([&] { read_config(small_config(changes)); }, Exit::bad_data, {"/config.json"});
  expect_refused([&] { read_config(small_config(changes)); }, Exit::bad_data, words);
}

Json rope(const char* type, const Json& more = Json::object()) {
  Json scaling = {{"rope_type", type}};
  scaling.update(more);
  return {{"rope_scaling", scaling}};
}

TEST(Refused, IsWhatWeLackByName) {
  expect_bad({{"architectures", {"GPT2LMHeadModel"}}},
             {"'architectures'", "GPT2LMHeadModel", "Qwen3"});
  expect_bad({{"architectures", nullptr}, {"model_type", "mamba"}}, {"'model_type'", "mamba"});
  expect_bad({{"model_type", "qwen2"}}, {"'model_type'", "qwen2", "LlamaForCausalLM"});
  for (const char* type : {"dynamic", "mrope", "Linear", ""})
    expect_bad(rope(type, {{"factor", 2.0}}), {"'rope_scaling'", fmt::format("'{}'", type)});
  expect_bad({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}},
             {"full_attention"});
  expect_bad({{"layer_types", {"full_attention", "sliding_attention"}}},
             {"layer_types", "sliding"});
  expect_bad({{"hidden_act", "gelu"}}, {"'hidden_act'", "gelu"});
  expect_bad({{"quantization_config", {{"bits", 4}}}}, {"'quantization_config'"});
  expect_bad({{"torch_dtype", "float8_e4m3fn"}}, {"'torch_dtype'", "float8_e4m3fn"});
  expect_bad({{"partial_rotary_factor", 0.5}}, {"'partial_rotary_factor'", "0.5"});
  Json phi3 = {{"architectures", {"Phi3ForCausalLM"}}, {"model_type", "phi3"}};
  for (const double share : {0.0, -0.5, 0.1, 0.2, 1.25, 1e300}) {  // 0.2: 3 of 16 values
    phi3["partial_rotary_factor"] = share;
    expect_bad(phi3, {"'partial_rotary_factor'", "head_dim = 16"});
  }
}

TEST(Refused, AreNumbersOfTheWrongKind) {
  const Json wrong[] = {
      1.5,  -1,  0,          "8",        true,     Json::array({8}), Json::object(),
      1e30, 8.0, 1ULL << 63, UINT64_MAX, INT64_MAX};
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "head_dim"}) {
    const std::string quoted = fmt::format("'{}'", key);
    for (const Json& value : wrong) expect_bad({{key, value}}, {quoted, "integer"});
  }
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers"})
    expect_bad({{key, nullptr}}, {fmt::format("'{}'", key), "missing"});
}

TEST(Refused, AreOtherMembersOfTheWrongKind) {
  const Json eos_tokens[] = {-1, 1.5, "2", 100, 1ULL << 32, {1, -1}, {1, nullptr}, {{1}}};
  for (const Json& value : eos_tokens)
    expect_bad({{"eos_token_id", value}}, {"'eos_token_id'", "100"});
  expect_bad({{"bos_token_id", 100}}, {"'bos_token_id'"});
  for (const char* key : {"tie_word_embeddings", "attention_bias", "mlp_bias"})
    for (const Json& value : {Json(1), Json("true"), Json::array()})
      expect_bad({{key, value}}, {fmt::format("'{}'", key), "true or false"});
  for (const Json& value : {Json(0), Json(-1e-6), Json(1), Json("1e-6")})
    expect_bad({{"rms_norm_eps", value}}, {"'rms_norm_eps'"});
  for (const Json& value : {Json("Llama"), Json::array(), Json{1}, Json{"LlamaForCausalLM", "x"}})
    expect_bad({{"architectures", value}}, {"'architectures'"});
  for (const Json& value : {Json(5), Json("linear"), Json::array(), Json{1}, Json(true)})
    expect_bad({{"rope_scaling", value}}, {"'rope_scaling'"});
  for (const Json& value : {Json("full_attention"), Json(1), Json{{"a", "full_attention"}}})
    expect_bad({{"layer_types", value}}, {"'layer_types'"});
  expect_bad({{"hidden_act", 1}}, {"'hidden_act'"});
  expect_bad({{"dtype", 16}}, {"'dtype'"});
}

TEST(Refused, AreMultipliersThatCannotBe) {
  const Json granite = {{"architectures", {"GraniteForCausalLM"}}, {"model_type", "granite"}};
  read_config(small_config(granite));
  for (const char* key :
       {"embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"}) {
    for (const Json& value : {Json(0), Json(-1), Json(1e300), Json("1"), Json::array()}) {
      Json changed = granite;
      changed[key] = value;
      expect_bad(changed, {fmt::format("'{}'", key)});
    }
  }
}

TEST(Refused, AreTextPartsThatAreNotOurs) {
  const auto nested = [](const Json& text) {
    return Json{{"architectures", {"Mistral3ForConditionalGeneration"}},
                {"model_type", "mistral3"},
                {"text_config", text}};
  };
  Json text = small_config({{"model_type", "mistral"}, {"sliding_window", nullptr}});
  EXPECT_EQ(read_config(nested(text)).hidden_size, 64);
  text["model_type"] = "qwen2";
  expect_refused([&] { read_config(nested(text)); }, Exit::bad_data,
                 {"text_config", "'model_type'", "qwen2", "mistral"});
  text["model_type"] = "mistral";
  text["hidden_size"] = -1;
  expect_refused([&] { read_config(nested(text)); }, Exit::bad_data,
                 {"text_config", "'hidden_size'"});
  expect_refused([&] { read_config(nested(nullptr)); }, Exit::bad_data, {"'text_config'"});
}

TEST(Refused, AreExpertsThatCannotBe) {
  const auto bad = [](const Json& changes, std::initializer_list<std::string_view> words) {
    Json mixture = {{"architectures", {"Qwen3MoeForCausalLM"}},
                    {"model_type", "qwen3_moe"},
                    {"num_experts", 8},
                    {"num_experts_per_tok", 2},
                    {"moe_intermediate_size", 16}};
    read_config(small_config(mixture));
    mixture.update(changes);
    expect_bad(mixture, words);
  };
  const Json mixtral = {{"architectures", {"MixtralForCausalLM"}}, {"model_type", "mixtral"}};
  for (const auto& [key, value] : {std::pair<const char*, Json>{"num_local_experts", 0},
                                   {"num_local_experts", 1025},
                                   {"num_experts_per_tok", 9},
                                   {"num_experts_per_tok", 0}}) {
    Json changed = mixtral;
    changed[key] = value;
    expect_bad(changed, {fmt::format("'{}'", key)});
  }
  bad({{"num_experts", 1025}}, {"'num_experts'", "1024", "1025"});
  bad({{"num_experts", -1}}, {"'num_experts'", "-1"});
  bad({{"num_experts_per_tok", 9}}, {"'num_experts_per_tok'", "8", "9"});
  bad({{"num_experts_per_tok", 0}}, {"'num_experts_per_tok'", "0"});
  bad({{"moe_intermediate_size", 0}}, {"'moe_intermediate_size'"});
  bad({{"decoder_sparse_step", 0}}, {"'decoder_sparse_step'"});
  bad({{"norm_topk_prob", 1}}, {"'norm_topk_prob'"});
  for (const Json& value : {Json(1), Json{0, 2}, Json{-1}, Json{"1"}, Json{0.5}})
    bad({{"mlp_only_layers", value}}, {"'mlp_only_layers'", "num_hidden_layers = 2"});
}

TEST(Refused, AreSharedExpertsAndRoutersThatCannotBe) {
  const auto bad = [](const char* type, const char* architecture, const char* key,
                      const Json& value) {
    const Json all = {{"architectures", {architecture}}, {"model_type", type}, {key, value}};
    expect_bad(all, {fmt::format("'{}'", key)});
  };
  for (const auto& [key, value] :
       {std::pair<const char*, Json>{"shared_expert_intermediate_size", 0},
        {"shared_expert_intermediate_size", 1.5},
        {"shared_expert_intermediate_size", std::int64_t{1} << 40},
        {"num_experts_per_tok", 61}})
    bad("qwen2_moe", "Qwen2MoeForCausalLM", key, value);
  for (const auto& [key, value] : {std::pair<const char*, Json>{"n_routed_experts", 0},
                                   {"n_routed_experts", 1025},
                                   {"num_experts_per_tok", 129},
                                   {"n_shared_experts", -1},
                                   {"n_shared_experts", std::int64_t{1} << 40},
                                   {"routed_scaling_factor", 0},
                                   {"routed_scaling_factor", "2"},
                                   {"first_k_dense_replace", -1},
                                   {"n_group", 0},
                                   {"num_nextn_predict_layers", -1},
                                   {"partial_rotary_factor", 0.2}})
    bad("glm4_moe", "Glm4MoeForCausalLM", key, value);
  const Json groups = {{"architectures", {"Glm4MoeForCausalLM"}},
                       {"model_type", "glm4_moe"},
                       {"n_group", 8},
                       {"topk_group", 4}};
  expect_bad(groups, {"'topk_group'", "4 of 8 groups"});
}

TEST(Refused, AreLayersWithoutRopeThatCannotBe) {
  const auto bad = [](const char* key, const Json& value,
                      std::initializer_list<std::string_view> words) {
    const Json smollm3 = {{"architectures", {"SmolLM3ForCausalLM"}}, {"model_type", "smollm3"}};
    read_config(small_config(smollm3));
    Json changed = smollm3;
    changed[key] = value;
    expect_bad(changed, {fmt::format("'{}'", key)});
    expect_bad(changed, words);
  };
  const Json values[] = {Json::array(),
                         Json{1},
                         {1, 0, 1},
                         {1, 2},
                         {1, -1},
                         {0.5, 1},
                         {1.0, 0.0},
                         "10",
                         {"1", "0"},
                         {true, false},
                         1,
                         {1, nullptr},
                         {{"0", 1}, {"1", 0}},
                         Json::array({{1}, {0}}),
                         {1, UINT64_MAX}};
  for (const Json& value : values) bad("no_rope_layers", value, {"num_hidden_layers = 2"});
  bad("no_rope_layers", Json(std::vector<int>(1 << 20, 1)), {"got [1,1"});
  for (const Json& value : {Json(0), Json(-1), Json(0.5), Json("4"), Json::array({4}), Json(1025)})
    bad("no_rope_layer_interval", value, {"1024"});
  const Json by_type = {{"full_attention", {{"rope_theta", 1e4}}}};
  bad("rope_parameters", by_type, {"full_attention", "SmolLM3ForCausalLM"});
}

TEST(Refused, IsRopeByLayerTypesThatCannotBe) {
  const auto qwen3 = [](const Json& changes) {
    Json all = {{"architectures", {"Qwen3ForCausalLM"}},
                {"model_type", "qwen3"},
                {"sliding_window", 16},
                {"use_sliding_window", true},
                {"layer_types", {"sliding_attention", "full_attention"}}};
    all.update(changes);
    return all;
  };
  const Json plain = {{"rope_theta", 1e4}};
  const Json good = {{"full_attention", plain}, {"sliding_attention", plain}};
  read_config(small_config(qwen3({{"rope_parameters", good}})));
  for (const char* type : {"full_attention", "sliding_attention"}) {
    for (const Json& value : {Json(1), Json("default"), Json::array(), Json{{"rope_type", "su"}},
                              Json{{"rope_theta", 0}}, Json{{"rope_type", "linear"}}}) {
      Json damaged = good;
      damaged[type] = value;
      expect_bad(qwen3({{"rope_parameters", damaged}}), {"'rope_parameters'", type});
    }
  }
  expect_bad(
      qwen3({{"rope_parameters", good}, {"use_sliding_window", false}, {"layer_types", nullptr}}),
      {"rope_parameters", "full_attention", "Qwen3ForCausalLM"});
}

TEST(Refused, AreShapesThatDoNotFit) {
  expect_bad({{"num_key_value_heads", 3}}, {"'num_attention_heads'", "= 3", "got 4"});
  expect_bad({{"num_key_value_heads", 8}}, {"'num_attention_heads'", "= 8", "got 4"});
  expect_bad({{"hidden_size", 66}}, {"'hidden_size'", "got 66"});
  expect_bad({{"hidden_size", 60}}, {"head_dim", "even", "15"});
  expect_bad({{"hidden_size", 1 << 20}}, {"head_dim", "262144"});
}

TEST(Refused, AreRopeSettingsOutOfRange) {
  for (const Json& value : {Json(0), Json(1), Json(-1e4), Json(1e300), Json("1e4"), Json(true)})
    expect_bad({{"rope_theta", value}}, {"'rope_theta'"});
  expect_bad(rope("linear"), {"'rope_scaling'", "'factor'", "missing"});
  for (const Json& value : {Json(0), Json(0.5), Json(-2), Json(1e9), Json("4"), Json::array()})
    expect_bad(rope("linear", {{"factor", value}}), {"'rope_scaling'", "'factor'"});
  expect_bad({{"rope_scaling", {{"type", 3}}}}, {"'rope_scaling'", "'type'"});

  const Json llama3 = {{"factor", 8}, {"low_freq_factor", 1}, {"high_freq_factor", 4}};
  for (const char* key : {"low_freq_factor", "high_freq_factor"}) {
    Json settings = llama3;
    settings.erase(key);
    expect_bad(rope("llama3", settings), {fmt::format("'{}'", key), "missing"});
  }
  for (const auto& [key, value] :
       {std::pair{"low_freq_factor", Json(4)}, {"high_freq_factor", Json(0.5)}}) {
    Json settings = llama3;
    settings[key] = value;
    expect_bad(rope("llama3", settings), {"'high_freq_factor'"});
  }
  const std::pair<const char*, Json> yarn[] = {
      {"beta_slow", 0},         {"beta_fast", 1},
      {"attention_factor", -1}, {"mscale", -0.5},
      {"truncate", 0},          {"original_max_position_embeddings", 0},
      {"mscale", "0.5"},        {"original_max_position_embeddings", 4096.5}};
  for (const auto& [key, value] : yarn)
    expect_bad(rope("yarn", {{"factor", 4}, {key, value}}), {fmt::format("'{}'", key)});

  const char* original = "original_max_position_embeddings";
  const std::vector<double> ones(8, 1);
  for (const Json& value : {Json(nullptr), Json(1), Json(std::vector<double>(7, 1)), Json::array(),
                            Json(std::vector<double>(8, 0)), Json(std::vector<double>(8, 1e9)),
                            Json(std::vector<std::string>(8, "1"))})
    expect_bad(rope("longrope", {{"long_factor", value}, {original, 64}}), {"'long_factor'"});
  expect_bad(rope("longrope", {{"long_factor", ones}}),
             {"'short_factor'"});  // no longer than it was
  expect_bad(rope("longrope", {{"long_factor", ones}, {original, 1}}), {original});
}

void expect_bad_text(const std::string& text, std::initializer_list<std::string_view> words) {
  const TemporaryFolder folder;
  folder.write("config.json", text);
  SCOPED_TRACE(text.substr(0, 200));
  expect_refused([&] { read_model_config(folder.path()); }, Exit::bad_data,
                 {folder.file("config.json")});
  expect_refused([&] { read_model_config(folder.path()); }, Exit::bad_data, words);
}

TEST(Refused, AreFilesThatAreNoConfig) {
  const std::string whole = to_line(small_config());
  for (std::size_t n = 0; n < whole.size(); ++n) expect_bad_text(whole.substr(0, n), {"column"});
  for (const char* text : {"[]", "1", "null", "\"x\""}) expect_bad_text(text, {"object"});
  const std::string body = whole.substr(1);
  expect_bad_text(R"({"vocab_size": 5, )" + body, {"'vocab_size'", "twice"});
  expect_bad_text("{\"x\": \"\xff\", " + body, {"UTF-8"});
  expect_bad_text("{\"x\": " + std::string(100'000, '['), {"deeper"});
  expect_bad_text("{\"x\": " + std::string(32, '[') + std::string(32, ']') + ", " + body,
                  {"deeper"});
  expect_bad_text("{\"x\": \"" + std::string(std::size_t{16} << 20, 'x') + "\", " + body,
                  {"at most"});
  expect_bad_text(R"({"model_type": ")" + std::string(1 << 20, 'x') + "\"}", {"'model_type'"});
}

TEST(Refused, IsAFolderWithout) {
  const TemporaryFolder folder;
  expect_refused([&] { read_model_config(folder.path()); }, Exit::no_input,
                 {folder.file("config.json")});
  expect_refused([&] { read_model_config(folder.file("none")); }, Exit::no_input,
                 {"none/config.json"});
  folder.write("config.json", to_line(small_config()));
  EXPECT_NO_THROW(read_model_config(folder.path()));
  folder.write("generation_config.json", R"({"eos_token_id": 100})");
  expect_refused([&] { read_model_config(folder.path()); }, Exit::bad_data,
                 {"generation_config.json", "'eos_token_id'"});
}

// Any value anywhere: an error, or a config within its limits.
TEST(Refused, OrReadIsAnyValueAnywhere) {
  const Json values[] = {nullptr,
                         false,
                         0,
                         -1,
                         1,
                         2,
                         3,
                         64,
                         1.5,
                         1e300,
                         1ULL << 63,
                         "",
                         "yarn",
                         Json::array(),
                         Json::object(),
                         Json::array({1}),
                         {{"rope_type", "yarn"}}};
  int n_read = 0, n_refused = 0;
  for (const char* name : kGoldenNames) {
    const Json whole = read_json_file(kGoldenModels + name + "/config.json");
    const Json flat = whole.flatten();
    for (const auto& [pointer, unused] : flat.items()) {
      for (const Json& value : values) {
        Json damaged = whole;
        damaged[Json::json_pointer(pointer)] = value;
        try {
          const ModelConfig c = read_config(damaged);
          ++n_read;
          EXPECT_TRUE(c.n_kv_heads > 0 && c.n_heads % c.n_kv_heads == 0 && c.head_dim % 2 == 0);
          EXPECT_TRUE(c.vocab_size > 0 && c.hidden_size > 0 && c.n_layers > 0 &&
                      c.max_positions > 0);
          for (const Token token : c.eos_tokens) EXPECT_TRUE(token >= 0 && token < c.vocab_size);
          EXPECT_LT(describe(c).size(), 300U);
        } catch (const Error& error) {
          ++n_refused;
          EXPECT_EQ(error.exit(), Exit::bad_data) << error.what();
        }
      }
    }
  }
  EXPECT_GT(n_read, 500);
  EXPECT_GT(n_refused, 500);
}

}  // namespace
}  // namespace starattn
