// SPDX-License-Identifier: Apache-2.0
// The spellings of config.json that mean the same.
#include "model/config.h"

#include "small_config.h"

namespace starattn {
namespace {

using Tokens = std::vector<Token>;

const Json kLinear = {{"type", "linear"}, {"factor", 4.0}};

TEST(Spellings, OfRopeMeanTheSame) {
  const Json spellings[] = {
      {{"rope_theta", 5e5}, {"rope_scaling", kLinear}},
      {{"rope_theta", 500000}, {"rope_scaling", {{"rope_type", "linear"}, {"factor", 4}}}},
      {{"rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 4.0}}}},
      {{"rope_theta", 5e5}, {"rope_parameters", kLinear}, {"rope_scaling", nullptr}},
      {{"rope_theta", 5e5}, {"rope_parameters", kLinear}, {"rope_scaling", Json::object()}}};
  for (const Json& spelling : spellings) {
    const RopeConfig rope = read_config(small_config(spelling)).rope;
    EXPECT_EQ(rope.kind, RopeKind::linear) << spelling;
    EXPECT_EQ(rope.theta, 5e5) << spelling;
    EXPECT_EQ(rope.factor, 4) << spelling;
  }
  const RopeConfig plain = read_config(small_config({{"rope_scaling", nullptr}})).rope;
  EXPECT_EQ(plain.kind, RopeKind::standard);
  EXPECT_EQ(plain.theta, 1e4);
}

TEST(Spellings, OfDtypeMeanTheSame) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    EXPECT_EQ(read_config(small_config({{key, "float16"}})).dtype, Dtype::f16);
    EXPECT_EQ(read_config(small_config({{key, "float32"}})).dtype, Dtype::f32);
  }
  EXPECT_EQ(read_config(small_config()).dtype, Dtype::bf16);
}

TEST(Spellings, OfTheFamilyMeanTheSame) {
  for (const char* key : {"architectures", "model_type"}) {
    Json config = small_config();
    config.erase(key);
    EXPECT_EQ(read_config(config).architecture, "LlamaForCausalLM") << key;
  }
}

TEST(Spellings, OfTheEndAreATokenAListOrNothing) {
  const std::pair<Json, Tokens> cases[] = {
      {7, {7}}, {{7, 9, 7}, {7, 9}}, {Json::array(), {}}, {nullptr, {}}, {0, {0}}};
  for (const auto& [value, expected] : cases)
    EXPECT_EQ(read_config(small_config({{"eos_token_id", value}})).eos_tokens, expected) << value;

  const TemporaryFolder folder;
  folder.write("config.json", to_line(small_config({{"eos_token_id", 7}})));
  folder.write("generation_config.json", R"({"eos_token_id": [9, 7, 8]})");
  EXPECT_EQ(read_model_config(folder.path()).eos_tokens, (Tokens{7, 9, 8}));
}

// Python's json writes numbers that JSON does not have.
TEST(Spellings, OfPythonAreRefusedOnlyWhereANumberIsWanted) {
  const auto read = [](const std::string& more) {
    const TemporaryFolder folder;
    std::string text = to_line(small_config());
    text.back() = ',';
    folder.write("config.json", text + more + "}");
    return read_model_config(folder.path());
  };
  const ModelConfig c = read(R"("time_step_limit": [0.0, Infinity, -Infinity,NaN],
                                "name": "a \\\" NaN", "rms_norm_eps": 1e-4)");
  EXPECT_EQ(c.rms_norm_eps, 1e-4);
  for (const char* number : {"NaN", "Infinity", "-Infinity"}) {
    expect_refused(
        [&] { read(fmt::format(R"("rms_norm_eps": {})", number)); }, Exit::bad_data,
        {"/config.json", "'rms_norm_eps'", fmt::format("finite number, got '{}'", number)});
    expect_refused([&] { read(fmt::format(R"("rope_theta": {})", number)); }, Exit::bad_data,
                   {"'rope_theta'", "finite number"});
  }
  for (const char* broken : {R"("x": NaNa)", R"("x": nan)", R"("x": +Infinity)"})
    expect_refused([&] { read(broken); }, Exit::bad_data, {"not valid JSON"});
}

TEST(Positions, AreStretchedByYarn) {
  const auto positions = [](Json scaling, std::int64_t of_file) {
    scaling["rope_type"] = "yarn";
    return read_config(
               small_config({{"max_position_embeddings", of_file}, {"rope_scaling", scaling}}))
        .max_positions;
  };
  const char* original = "original_max_position_embeddings";
  EXPECT_EQ(positions({{"factor", 4.0}, {original, 32768}}, 32768), 131072);
  EXPECT_EQ(positions({{"factor", 4.0}, {original, 32768}}, 131072), 131072);
  EXPECT_EQ(positions({{"factor", 4.0}, {original, 32768}}, 262144), 262144);
  EXPECT_EQ(positions({{"factor", 1.7}, {original, 4096}}, 4096), 6963);
  EXPECT_EQ(positions({{"factor", 4.0}}, 4096), 16384);
  EXPECT_EQ(positions({{original, 4096}}, 65536), 65536);
  EXPECT_EQ(positions({{"factor", 1e6}, {original, 1LL << 32}}, 4096), 1LL << 32);
  EXPECT_EQ(read_config(small_config({{"rope_scaling", kLinear}})).max_positions, 4096);
}

// Phi-3's words: the original length beside rope_scaling, no factor, and "su" in the first folders.
TEST(LongRope, IsThatOfTheFullLength) {
  const Json scaling = {{"type", "longrope"},
                        {"short_factor", std::vector<double>(8, 1.5)},
                        {"long_factor", {1, 2, 4, 8, 16, 32, 64, 64.5}}};
  const auto read = [&](const Json& changes) {
    Json config = small_config({{"rope_scaling", scaling},
                                {"max_position_embeddings", 131072},
                                {"original_max_position_embeddings", 4096}});
    config.merge_patch(changes);
    return read_config(config);
  };
  const ModelConfig c = read(Json::object());
  EXPECT_EQ(c.rope.kind, RopeKind::longrope);
  EXPECT_EQ(c.rope.divisors, scaling["long_factor"].get<std::vector<double>>());
  EXPECT_EQ(c.rope.factor, 32);
  EXPECT_EQ(c.max_positions, 131072);
  EXPECT_NE(describe(c).find("RoPE 10000 (longrope x32)"), std::string::npos) << describe(c);
  EXPECT_EQ(read({{"rope_scaling", {{"type", "su"}}}}).rope, c.rope);

  const ModelConfig within = read({{"max_position_embeddings", 4096}});
  EXPECT_EQ(within.rope.divisors, std::vector<double>(8, 1.5));
  EXPECT_EQ(within.rope.factor, 1);
  const ModelConfig said = read({{"rope_scaling", {{"factor", 8}, {"attention_factor", 1.25}}}});
  EXPECT_EQ(said.rope.factor, 8);
  EXPECT_EQ(said.rope.attention_factor, 1.25);
  Json other = scaling["long_factor"];
  other[7] = 64;
  EXPECT_NE(canonical_text(read({{"rope_scaling", {{"long_factor", other}}}})), canonical_text(c));
}

// As Phi-4-mini says it, and as transformers 5 writes it.
TEST(PartialRotation, IsOfAHeadsFirstValues) {
  const Json scaling = {{"type", "longrope"},
                        {"short_factor", std::vector<double>(6, 1)},
                        {"long_factor", {1, 1.5, 2, 4, 8, 16}}};
  Json config = small_config({{"architectures", {"Phi3ForCausalLM"}},
                              {"model_type", "phi3"},
                              {"vocab_size", 40000},
                              {"partial_rotary_factor", 0.75},
                              {"rope_scaling", scaling},
                              {"original_max_position_embeddings", 2048}});
  const ModelConfig c = read_config(config);
  EXPECT_EQ(c.head().size, 16);
  EXPECT_EQ(c.head().rotary, 12);
  EXPECT_EQ(c.rope.divisors.size(), 6U);
  EXPECT_NE(describe(c).find("(longrope x2) of 12 values a head"), std::string::npos)
      << describe(c);
  EXPECT_NE(canonical_text(c).find(" rotary=12 /1 /1.5"), std::string::npos) << canonical_text(c);
  config["rope_parameters"] = scaling;
  config["rope_parameters"]["partial_rotary_factor"] = 0.75;
  config.erase("rope_scaling");
  config.erase("partial_rotary_factor");
  EXPECT_EQ(canonical_text(read_config(config)), canonical_text(c));
  config.erase("rope_parameters");
  EXPECT_EQ(read_config(config).head().rotary, 16);
  config["partial_rotary_factor"] = 0.5;
  EXPECT_EQ(read_config(config).head().rotary, 8);
}

TEST(Positions, EndWhereDualChunkAttentionWouldBegin) {
  const char* key = "dual_chunk_attention_config";
  const char* original = "original_max_position_embeddings";
  const auto positions = [&](const Json& chunks) {
    return read_config(small_config({{"max_position_embeddings", 1010000}, {key, chunks}}))
        .max_positions;
  };
  EXPECT_EQ(positions({{"chunk_size", 262144}, {"local_size", 8192}, {original, 262144}}), 262144);
  EXPECT_EQ(positions({{original, 2000000}}), 1010000);
  EXPECT_EQ(positions(nullptr), 1010000);
  expect_refused([&] { positions({{"chunk_size", 262144}}); }, Exit::bad_data, {key, original});
}

// A window between the file's positions and the stretched ones is none that the file reaches: the
// stretching ends there.
TEST(Positions, OfTheFileAreThoseThatAWindowIsHeldAgainst) {
  const Json yarn = {{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 4096}};
  const auto stretched_to = [&](std::int64_t window) {
    return read_config(small_config({{"architectures", {"MistralForCausalLM"}},
                                     {"model_type", "mistral"},
                                     {"sliding_window", window},
                                     {"rope_scaling", yarn}}))
        .max_positions;
  };
  EXPECT_EQ(stretched_to(4096), 4096);
  EXPECT_EQ(stretched_to(8192), 8192);
  EXPECT_EQ(stretched_to(65536), 16384);
}

TEST(Windows, ThatNothingReachesAreNone) {
  for (const Json& config :
       {family_config("mistral", "MistralForCausalLM", {{"sliding_window", 4096}}),
        family_config("llama", "LlamaForCausalLM", {{"sliding_window", 16}}),
        family_config("qwen2", "Qwen2ForCausalLM", {{"sliding_window", 16}}),
        family_config("qwen3_moe", "Qwen3MoeForCausalLM", {{"sliding_window", 16}})})
    EXPECT_EQ(windows_of(read_config(config)), (std::vector<std::int64_t>{0, 0}));
}

// --allow-long goes beyond max_positions, but never beyond such a window.
TEST(Windows, AreALimitWhereTheyAreNotReached) {
  const auto mistral = [](const Json& changes) {
    return read_config(family_config("mistral", "MistralForCausalLM", changes));
  };
  EXPECT_EQ(mistral({{"sliding_window", 4096}}).sliding_window, 4096);
  EXPECT_EQ(mistral({{"sliding_window", 9000}}).sliding_window, 9000);
  EXPECT_EQ(mistral({{"sliding_window", 9000}}).max_positions, 4096);
  EXPECT_EQ(mistral({{"sliding_window", nullptr}}).sliding_window, kNoWindow);
  const Json llama = family_config("llama", "LlamaForCausalLM", {{"sliding_window", 16}});
  EXPECT_EQ(read_config(llama).sliding_window, kNoWindow);
}

TEST(Windows, OfAllLayers) {
  const std::vector<std::int64_t> all = {100, 100};
  for (const Json& config :
       {family_config("mistral", "MistralForCausalLM", {{"sliding_window", 100}}),
        family_config("phi3", "Phi3ForCausalLM",
                      {{"sliding_window", 100}, {"vocab_size", 40000}, {"num_key_value_heads", 2}}),
        family_config("qwen3_moe", "Qwen3MoeForCausalLM",
                      {{"sliding_window", 100}, {"use_sliding_window", true}})}) {
    const ModelConfig c = read_config(config);
    EXPECT_EQ(windows_of(c), all);
    EXPECT_EQ(c.sliding_window, kNoWindow);
    EXPECT_EQ(c.max_positions, 4096);
  }
  const ModelConfig absent = read_config(
      family_config("mistral", "MistralForCausalLM", {{"max_position_embeddings", 32768}}));
  EXPECT_EQ(windows_of(absent), (std::vector<std::int64_t>{4096, 4096}));
}

// transformers: layer i slides where use_sliding_window and i >= max_window_layers (28 if absent).
TEST(Windows, AreOfTheLayersFromMaxWindowLayersOn) {
  for (const auto& [type, architecture] :
       {std::pair{"qwen2", "Qwen2ForCausalLM"}, {"qwen3", "Qwen3ForCausalLM"}}) {
    const auto n_windows = [&](const Json& changes) {
      Json all = {{"sliding_window", 16}, {"use_sliding_window", true}, {"num_hidden_layers", 28}};
      all.update(changes);
      const ModelConfig c = read_config(family_config(type, architecture, all));
      const std::int64_t n = c.n_windows();
      for (std::int64_t i = 0; i < c.n_layers; ++i) EXPECT_EQ(c.has_window(i), i >= c.n_layers - n);
      return n;
    };
    EXPECT_EQ(n_windows({{"max_window_layers", 28}}), 0);
    EXPECT_EQ(n_windows({{"max_window_layers", 29}}), 0);
    EXPECT_EQ(n_windows(Json::object()), 0);
    EXPECT_EQ(n_windows({{"max_window_layers", 27}}), 1);
    EXPECT_EQ(n_windows({{"max_window_layers", 0}}), 28);
    EXPECT_EQ(n_windows({{"num_hidden_layers", 29}}), 1);
  }
}

TEST(Windows, AreOfTheLayersThatAreListed) {
  const Json listed = {{"sliding_window", 16},
                       {"use_sliding_window", true},
                       {"layer_types", {"sliding_attention", "full_attention"}}};
  EXPECT_EQ(windows_of(read_config(family_config("qwen3", "Qwen3ForCausalLM", listed))),
            (std::vector<std::int64_t>{16, 0}));
}

TEST(Windows, ThatMakeNoSenseAreRefused) {
  const auto refuses = [](const char* type, const char* architecture, Json changes,
                          std::initializer_list<std::string_view> words) {
    expect_refused([&] { read_config(family_config(type, architecture, changes)); }, Exit::bad_data,
                   words);
  };
  refuses("mistral", "MistralForCausalLM", {{"sliding_window", 0}}, {"sliding_window", "1 token"});
  refuses("mistral", "MistralForCausalLM",
          {{"sliding_window", 16}, {"layer_types", {"sliding_attention", "full_attention"}}},
          {"layer_types", "sliding_attention"});
  refuses("llama", "LlamaForCausalLM", {{"layer_types", {"sliding_attention", "full_attention"}}},
          {"layer_types"});
  const Json qwen = {{"sliding_window", 16}, {"use_sliding_window", true}};
  const auto with_types = [&](const Json& types) {
    Json all = qwen;
    all["layer_types"] = types;
    return all;
  };
  refuses("qwen2", "Qwen2ForCausalLM", with_types({"sliding_attention"}),
          {"layer_types", "num_hidden_layers = 2", "1"});
  refuses("qwen2", "Qwen2ForCausalLM", with_types({"chunked_attention", "full_attention"}),
          {"layer_types", "chunked_attention"});
  refuses("qwen2", "Qwen2ForCausalLM", with_types("full_attention"), {"layer_types", "list"});
  Json none = with_types({"sliding_attention", "full_attention"});
  none["sliding_window"] = nullptr;
  refuses("qwen2", "Qwen2ForCausalLM", none, {"sliding_window"});
  none = with_types({"sliding_attention", "full_attention"});
  none["use_sliding_window"] = false;
  refuses("qwen2", "Qwen2ForCausalLM", none, {"layer_types"});
}

// Version 0.1.0 wrote exactly these texts, and every checkpoint is found by its own.
TEST(CanonicalText, IsThatOfTheFirstVersionWhereBiasesAreTheFamilys) {
  const char* sizes =
      "vocab=100 hidden=64 intermediate=96 layers=2 heads=4 kv_heads=2 head_dim={} "
      "eps=9.9999999999999995e-07 rope=0 10000 1 1 4 0 32 1 0 0 0 true";
  const std::tuple<const char*, const char*, int> families[] = {
      {"llama", "LlamaForCausalLM", 16},
      {"qwen2", "Qwen2ForCausalLM", 16},
      {"qwen3", "Qwen3ForCausalLM", 128},
      {"mistral", "MistralForCausalLM", 16}};
  for (const auto& [type, architecture, head_dim] : families) {
    const Json json = family_config(type, architecture, {{"sliding_window", nullptr}});
    EXPECT_EQ(canonical_text(read_config(json)),
              fmt::format("{} {}", architecture, fmt::format(fmt::runtime(sizes), head_dim)));
  }
  const std::string plain = canonical_text(read_config(small_config()));
  EXPECT_EQ(canonical_text(read_config(small_config({{"attention_bias", true}}))),
            plain + " qkv_bias=true o_bias=true");
  EXPECT_EQ(canonical_text(read_config(small_config({{"mlp_bias", true}}))),
            plain + " mlp_bias=true");
  const Json mistral =
      family_config("mistral", "MistralForCausalLM", {{"sliding_window", nullptr}});
  Json windowed = mistral, wide = mistral;
  windowed["sliding_window"] = 100;
  wide["sliding_window"] = 4096;
  EXPECT_EQ(canonical_text(read_config(windowed)),
            canonical_text(read_config(mistral)) + " windows=100,100,");
  EXPECT_EQ(canonical_text(read_config(wide)), canonical_text(read_config(mistral)));
}

TEST(Describe, IsALineForPeople) {
  EXPECT_EQ(describe(read_config(small_config({{"rope_scaling", kLinear}}))),
            "Llama, 0.1M parameters, 2 layers, hidden 64, 4 heads / 2 KV heads, head dim 16, "
            "vocabulary 100, RoPE 10000 (linear x4), 4,096 positions");
  EXPECT_EQ(read_config(small_config()).kv_bytes_per_token(Dtype::bf16), 2 * 2 * 32 * 2U);
}

}  // namespace
}  // namespace starattn
