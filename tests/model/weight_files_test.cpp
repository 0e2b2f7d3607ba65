// SPDX-License-Identifier: Apache-2.0
// Model folders that were tampered with.
#include "base/file.h"
#include "model/weights.h"
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
  folder.expect_refused(Exit::no_input, {folder.path(), "model.safetensors", "neither"});
  folder.write("pytorch_model.bin", "");
  folder.expect_refused(Exit::no_input,
                        {folder.path(), "pytorch_model.bin", "save the model as safetensors"});
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
      {"{\"weight_map\": {", "byte"}};
  for (const auto& [text, word] : cases) {
    folder.write(kIndex, text);
    folder.expect_refused(Exit::bad_data, {folder.file(kIndex), word});
  }
}

}  // namespace
}  // namespace starattn
