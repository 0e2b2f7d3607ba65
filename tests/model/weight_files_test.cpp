// SPDX-License-Identifier: Apache-2.0
// Model folders that were tampered with.
#include <functional>

#include "base/file.h"
#include "model/weights.h"
#include "safetensors_bytes.h"
#include "small_config.h"

namespace starattn {
namespace {

namespace fs = std::filesystem;

const std::string kIndex = "model.safetensors.index.json";
const std::string kQ = "model.layers.1.self_attn.q_proj.weight";

ModelWeights open(const std::string& folder) {
  return ModelWeights::open(folder, read_model_config(folder));
}

// A golden model's folder to tamper with.
class Tampered : public TemporaryFolder {
 public:
  explicit Tampered(const std::string& golden) { fs::copy(kGoldenModels + golden, path()); }
  Json read(const std::string& name) const { return read_json_file(file(name)); }
  void write_json(const std::string& name, const Json& json) const { write(name, to_line(json)); }

  void expect_refused(Exit exit, std::initializer_list<std::string_view> words) const {
    starattn::expect_refused([&] { open(path()); }, exit, words);
  }
};

// The index with a tensor said to be elsewhere.
void place(const Tampered& folder, const std::string& tensor, const Json& file) {
  Json index = folder.read(kIndex);
  index["weight_map"][tensor] = file;
  folder.write_json(kIndex, index);
}

TEST(Folders, NeedSafetensors) {
  const Tampered folder("llama31");
  fs::remove(folder.file("model.safetensors"));
  folder.expect_refused(Exit::no_input, {folder.path(), "model.safetensors", "found neither"});
  folder.write("pytorch_model.bin", "");
  folder.expect_refused(Exit::no_input,
                        {folder.path(), "pytorch_model.bin", "save them as safetensors"});
}

// What people have in a folder in place of a model, by the name of one file.
TEST(Folders, AreNamedForWhatTheyAre) {
  const std::pair<const char*, const char*> cases[] = {
      {"adapter_config.json", "a LoRA adapter: merge it"},
      {"adapter_model.safetensors", "a LoRA adapter: merge it"},
      {"model-Q4_K_M.gguf", "llama.cpp"},
      {"consolidated.safetensors", "the publisher's own format"},
      {"consolidated.00.pth", "the publisher's own format"},
      {"params.json", "the publisher's own format"},
      {"pytorch_model-00001-of-00002.bin", "save_pretrained"},
      {"tf_model.h5", "TensorFlow"}};
  for (const auto& [name, words] : cases) {
    SCOPED_TRACE(name);
    const TemporaryFolder bare;
    bare.write(name, "");
    expect_refused([&] { open(bare.path()); }, Exit::no_input,
                   {bare.path(), "config.json", name, words});
    const Tampered folder("llama31");
    fs::remove(folder.file("model.safetensors"));
    folder.write(name, "");
    folder.expect_refused(Exit::no_input, {folder.path(), "model.safetensors", name, words});
  }
  const TemporaryFolder folder;
  folder.write("model.gguf", "GGUF\x03");
  expect_refused([&] { open(folder.file("model.gguf")); }, Exit::no_input, {"is a GGUF file"});
  folder.write("model.safetensors", "");
  expect_refused([&] { open(folder.file("model.safetensors")); }, Exit::no_input,
                 {"give the folder that it is in"});
}

TEST(Files, AreNamedForWhatTheyAre) {
  const Tampered folder("qwen2");
  const std::pair<std::string, const char*> cases[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 4997750760\n",
       "is a Git LFS pointer, not the file itself: run 'git lfs pull'"},
      {"GGUF and more", "is a GGUF file"},
      {"PK\x03\x04 and more", "is a PyTorch checkpoint or another zip archive"},
      {"\x80\x02 and more", "is a Python pickle"},
      {"<!DOCTYPE html><html>", "is a web page"}};
  for (const auto& [bytes, words] : cases) {
    folder.write("model-00002-of-00002.safetensors", bytes);
    folder.expect_refused(Exit::bad_data, {folder.file("model-00002-of-00002.safetensors"), words});
  }
  for (const char* name : {"model.safetensors.index.json", "config.json"}) {
    folder.write(name, cases[0].first);
    folder.expect_refused(Exit::bad_data, {folder.file(name), cases[0].second});
  }
}

// One more tensor behind those of a golden model that has only one file.
void add_tensor(const Tampered& folder, const std::string& name, const std::string& like,
                const std::function<void(std::string&)>& change) {
  const std::string old = read_file(folder.file("model.safetensors"), 1 << 24);
  std::uint64_t n_header = 0;
  std::memcpy(&n_header, old.data(), sizeof(n_header));
  Json header = Json::parse(old.substr(8, n_header));
  const std::string data = old.substr(8 + n_header);
  Json tensor = header[like];
  const auto begin = tensor["data_offsets"][0].get<std::size_t>();
  std::string bytes = data.substr(begin, tensor["data_offsets"][1].get<std::size_t>() - begin);
  change(bytes);
  tensor["data_offsets"] = {data.size(), data.size() + bytes.size()};
  header[name] = tensor;
  folder.write("model.safetensors", file_of(header.dump(), data + bytes));
}

TEST(TiedEmbeddings, GiveWayToAHeadInTheFileThatDiffers) {
  const std::string embedding = "model.embed_tokens.weight";
  for (const bool differs : {false, true}) {
    const Tampered folder("llama31");
    ASSERT_TRUE(folder.read("config.json")["tie_word_embeddings"].get<bool>());
    const std::uint64_t n_bytes = open(folder.path()).total_bytes();
    add_tensor(folder, "lm_head.weight", embedding, [&](std::string& bytes) {
      if (differs) bytes[7] ^= 1;
    });
    ::testing::internal::CaptureStdout();  // where the default logger of tests writes
    const ModelWeights weights = open(folder.path());
    const std::string log = ::testing::internal::GetCapturedStdout();
    EXPECT_EQ(weights.lm_head.data != weights.embedding.data, differs);
    EXPECT_EQ(weights.total_bytes(), n_bytes + (differs ? weights.embedding.n_bytes() : 0));
    EXPECT_EQ(log.find("lm_head.weight that differs from the embedding") != std::string::npos,
              differs)
        << log;
  }
}

// What another config.json of the architecture, or another architecture, would compute with.
TEST(Layers, WithPartsThatAreNotTheirsAreSaid) {
  const auto log_of = [](const std::string& folder) {
    ::testing::internal::CaptureStdout();
    open(folder);
    return ::testing::internal::GetCapturedStdout();
  };
  for (const fs::directory_entry& golden : fs::directory_iterator(kGoldenModels)) {
    const std::string folder = golden.path().string();
    if (!fs::exists(folder + "/model.safetensors") || !fs::exists(folder + "/config.json"))
      continue;
    EXPECT_EQ(log_of(folder).find("not used"), std::string::npos) << folder;
  }
  for (const auto& [name, is_said] : {std::pair{"layers.1.self_attn.q_norm.weight", true},
                                      {"layers.0.self_attn.q_proj.bias", true},
                                      {"layers.0.self_attn.sinks", true},
                                      {"layers.0.self_attn.rotary_emb.inv_freq", false},
                                      {"layers.0.self_attn.k_scale", false},
                                      {"layers.0.self_attn.R3_q_attn.weight", false},
                                      {"vision.layers.0.weight", false}}) {
    const Tampered folder("llama31");
    add_tensor(folder, std::string("model.") + name, "model.norm.weight", [](std::string&) {});
    const std::string log = log_of(folder.path());
    EXPECT_EQ(log.find("hold 1 tensors of layers that LlamaForCausalLM") != std::string::npos,
              is_said)
        << name << log;
    EXPECT_EQ(log.find(name) != std::string::npos, is_said) << name << log;
  }
}

TEST(Layers, BeyondThoseOfTheConfigAreSaid) {
  const Tampered folder("llama31");
  Json config = folder.read("config.json");
  const auto n_layers = config["num_hidden_layers"].get<std::int64_t>();
  for (const std::int64_t n : {n_layers, n_layers - 1}) {
    config["num_hidden_layers"] = n;
    folder.write_json("config.json", config);
    ::testing::internal::CaptureStdout();
    open(folder.path());
    const std::string log = ::testing::internal::GetCapturedStdout();
    EXPECT_EQ(log.find(fmt::format("hold {} layers and config.json asks for {}", n_layers, n)) !=
                  std::string::npos,
              n < n_layers)
        << log;
  }
}

// The first layer behind the others of a GLM guesses further tokens.
TEST(Layers, ThatGuessTokensAreNotMissed) {
  const Tampered folder("glm4_moe");
  Json config = folder.read("config.json");
  config["num_hidden_layers"] = 2;
  for (const std::int64_t n : {1, 0}) {
    config["num_nextn_predict_layers"] = n;
    folder.write_json("config.json", config);
    ::testing::internal::CaptureStdout();
    open(folder.path());
    const std::string log = ::testing::internal::GetCapturedStdout();
    EXPECT_EQ(log.find("hold 3 layers and config.json asks for 2") != std::string::npos, n == 0)
        << log;
  }
}

TEST(Tensors, OfAnAdapterAndOfOtherNamesAreToldApart) {
  const std::string norm = "model.norm.weight";
  const std::pair<const char*, const char*> cases[] = {
      {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "a LoRA adapter"},
      {"layers.0.attention.wq.weight", "Mistral's own"}};
  for (const auto& [name, words] : cases) {
    const Tampered folder("llama31");
    add_tensor(folder, name, norm, [](std::string&) {});
    Json config = folder.read("config.json");
    config["tie_word_embeddings"] = false;  // so that a tensor is missing
    folder.write_json("config.json", config);
    folder.expect_refused(Exit::bad_data, {"'lm_head.weight'", words});
  }
}

TEST(Tensors, MustBeWhatTheConfigSays) {
  const Tampered folder("llama31");
  const Json config = folder.read("config.json");
  const std::pair<Json, std::vector<std::string>> cases[] = {
      {{{"vocab_size", 161}}, {"'model.embed_tokens.weight'", "[161, 48]", "[160, 48]"}},
      {{{"intermediate_size", 48}}, {"gate_proj.weight'", "[48, 48]", "[96, 48]"}},
      {{{"num_key_value_heads", 4}}, {"k_proj.weight'", "[64, 48]", "[32, 48]"}},
      {{{"num_hidden_layers", 4}}, {"'model.layers.3.input_layernorm.weight'", "has none"}},
      {{{"tie_word_embeddings", false}}, {"'lm_head.weight'", "has none"}},
      {{{"attention_bias", true}}, {"'model.layers.0.self_attn.q_proj.bias'", "has none"}}};
  for (const auto& [changes, words] : cases) {
    Json changed = config;
    changed.update(changes);
    folder.write_json("config.json", changed);
    for (const std::string& word : words)
      folder.expect_refused(Exit::bad_data, {folder.file("model.safetensors"), word});
  }
}

TEST(Tensors, MustBeOfADtypeWeRead) {
  const Tampered folder("llama31");
  std::string bytes = read_file(folder.file("model.safetensors"), 1 << 24);
  for (std::size_t at = 0; (at = bytes.find("\"BF16\"", at)) != std::string::npos;)
    bytes.replace(at, 6, " \"I16\"");
  folder.write("model.safetensors", bytes);
  folder.expect_refused(Exit::bad_data, {folder.file("model.safetensors"),
                                         "tensor 'model.embed_tokens.weight'", "I16"});
}

TEST(Shards, MustBeThereAndWhole) {
  const std::string shard = "model-00002-of-00002.safetensors";
  const Tampered missing("qwen2");
  fs::remove(missing.file(shard));
  missing.expect_refused(Exit::no_input, {missing.file(shard)});

  const Tampered truncated("qwen2");
  fs::resize_file(truncated.file(shard), fs::file_size(truncated.file(shard)) - 1);
  truncated.expect_refused(Exit::bad_data, {truncated.file(shard), "truncated"});

  const Tampered misplaced("qwen2");
  const Json map = misplaced.read(kIndex)["weight_map"];
  place(misplaced, kQ, map[kQ] == shard ? "model-00001-of-00002.safetensors" : shard);
  misplaced.expect_refused(Exit::bad_data, {fmt::format("tensor '{}'", kQ), "has none"});

  const Tampered incomplete("qwen2");
  Json index = incomplete.read(kIndex);
  index["weight_map"].erase(kQ);
  incomplete.write_json(kIndex, index);
  incomplete.expect_refused(Exit::bad_data,
                            {incomplete.file(kIndex), fmt::format("tensor '{}'", kQ)});
}

TEST(Shards, LieInTheFolder) {
  const std::string bytes = read_file(kGoldenModels + "llama31/model.safetensors", 1 << 24);
  const Json names[] = {"../x",    "/etc/passwd",          "sub/x", "", ".",     "..",
                        ".hidden", std::string("x\0y", 3), "x/",    5,  nullptr, {"x"}};
  for (const Json& name : names) {
    SCOPED_TRACE(to_line(name));
    const Tampered folder("qwen2");
    fs::create_directory(folder.file("sub"));
    folder.write("sub/x", bytes);
    place(folder, kQ, name);
    folder.expect_refused(Exit::bad_data,
                          {folder.file(kIndex), "'weight_map'", kQ, "name of a file"});
  }
}

TEST(Indexes, AreRefusedWhenTheyAreNone) {
  const Tampered folder("qwen2");
  const std::pair<const char*, const char*> cases[] = {
      {"{}", "'weight_map'"},
      {R"({"weight_map": []})", "'weight_map'"},
      {R"({"weight_map": {}})", "'model.embed_tokens.weight'"},
      {R"({"weight_map": {"a": "x", "a": "y"}})", "twice"},
      {"[]", "object"},
      {"{\"weight_map\": {", "column"}};
  for (const auto& [text, word] : cases) {
    folder.write(kIndex, text);
    folder.expect_refused(Exit::bad_data, {folder.file(kIndex), word});
  }
}

}  // namespace
}  // namespace starattn
