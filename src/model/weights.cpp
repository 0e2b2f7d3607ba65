// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <map>
#include <numbers>

#include "base/error.h"
#include "base/json.h"
#include "model/safetensors.h"

namespace starattn {
namespace {

// Where each tensor of the model lives: file by tensor name.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual WeightView get(const std::string& name, std::int64_t n_rows, std::int64_t n_cols) = 0;
};

// Names every tensor of the model, in Hugging Face's spelling, with its shape.
void collect(const ModelConfig& c, TensorSource& source, ModelWeights& weights) {
  const std::int64_t hidden = c.hidden_size;
  weights.embedding = source.get("model.embed_tokens.weight", c.vocab_size, hidden);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    const auto matrix = [&](const char* name, std::int64_t n_out, std::int64_t n_in) {
      return source.get(layer + name + ".weight", n_out, n_in);
    };
    const auto bias = [&](const char* name, std::int64_t n, bool present) {
      return present ? source.get(layer + name + ".bias", 1, n) : WeightView{};
    };
    LayerWeights w;
    w.input_norm = matrix("input_layernorm", 1, hidden);
    w.q_proj = matrix("self_attn.q_proj", c.q_width(), hidden);
    w.k_proj = matrix("self_attn.k_proj", c.kv_width(), hidden);
    w.v_proj = matrix("self_attn.v_proj", c.kv_width(), hidden);
    w.q_bias = bias("self_attn.q_proj", c.q_width(), c.qkv_bias);
    w.k_bias = bias("self_attn.k_proj", c.kv_width(), c.qkv_bias);
    w.v_bias = bias("self_attn.v_proj", c.kv_width(), c.qkv_bias);
    if (c.qk_norm) {
      w.q_norm = matrix("self_attn.q_norm", 1, c.head_dim);
      w.k_norm = matrix("self_attn.k_norm", 1, c.head_dim);
    }
    w.o_proj = matrix("self_attn.o_proj", hidden, c.q_width());
    w.o_bias = bias("self_attn.o_proj", hidden, c.o_bias);
    w.post_attention_norm = matrix("post_attention_layernorm", 1, hidden);
    w.gate_proj = matrix("mlp.gate_proj", c.intermediate_size, hidden);
    w.up_proj = matrix("mlp.up_proj", c.intermediate_size, hidden);
    w.down_proj = matrix("mlp.down_proj", hidden, c.intermediate_size);
    w.gate_bias = bias("mlp.gate_proj", c.intermediate_size, c.mlp_bias);
    w.up_bias = bias("mlp.up_proj", c.intermediate_size, c.mlp_bias);
    w.down_bias = bias("mlp.down_proj", hidden, c.mlp_bias);
    weights.layers.push_back(w);
  }
  weights.final_norm = source.get("model.norm.weight", 1, hidden);
  weights.lm_head =
      c.tied_embeddings ? weights.embedding : source.get("lm_head.weight", c.vocab_size, hidden);
}

class FileSource : public TensorSource {
 public:
  explicit FileSource(const std::string& folder) : folder_(folder) {
    const std::string index_path = folder + "/model.safetensors.index.json";
    const std::string single_path = folder + "/model.safetensors";
    if (::access(index_path.c_str(), F_OK) != 0) {
      files_.emplace("model.safetensors", SafetensorsFile(single_path));
      return;
    }
    const Json index = read_json_file(index_path, {std::size_t{256} << 20, 8});
    const JsonObject map = JsonObject(index, index_path).get_object("weight_map");
    for (const auto& [tensor, file] : map.json().items()) {
      const std::string name = map.get_string(tensor.c_str());
      if (name.empty() || name.find('/') != std::string::npos || name.front() == '.') {
        fail(Exit::bad_data, "{}: tensor '{}': '{}' is not a plain file name", index_path, tensor,
             name);
      }
      if (!files_.contains(name)) files_.emplace(name, SafetensorsFile(folder + "/" + name));
      file_of_[tensor] = name;
    }
  }

  WeightView get(const std::string& name, std::int64_t n_rows, std::int64_t n_cols) override {
    const SafetensorsFile& file = file_with(name);
    const TensorView* tensor = file.find(name);
    if (!tensor)
      fail(Exit::bad_data, "{}: tensor '{}' is missing: config.json asks for it", file.path(),
           name);
    const std::vector<std::int64_t> expected =
        n_rows == 1 ? std::vector{n_cols} : std::vector{n_rows, n_cols};
    if (tensor->shape != expected) {
      fail(Exit::bad_data, "{}: tensor '{}': expected shape [{}], got [{}]", file.path(), name,
           fmt::join(expected, ", "), fmt::join(tensor->shape, ", "));
    }
    static const std::map<std::string, Dtype> kDtypes = {
        {"BF16", Dtype::bf16}, {"F16", Dtype::f16}, {"F32", Dtype::f32}};
    const auto dtype = kDtypes.find(tensor->dtype_name);
    if (dtype == kDtypes.end()) {
      fail(
          Exit::bad_data,
          "{}: tensor '{}': expected BF16, F16 or F32, got {}. Quantised weights are not supported",
          file.path(), name, tensor->dtype_name);
    }
    n_bytes_ += tensor->n_bytes;
    return {tensor->data, dtype->second, n_rows, n_cols};
  }

  std::map<std::string, SafetensorsFile> take_files() { return std::move(files_); }
  std::uint64_t n_bytes() const { return n_bytes_; }

 private:
  const SafetensorsFile& file_with(const std::string& tensor) const {
    if (file_of_.empty()) return files_.begin()->second;
    const auto it = file_of_.find(tensor);
    if (it == file_of_.end()) {
      fail(Exit::bad_data,
           "{}/model.safetensors.index.json: tensor '{}' is in no shard: config.json asks for it",
           folder_, tensor);
    }
    return files_.at(it->second);
  }

  std::string folder_;
  std::map<std::string, SafetensorsFile> files_;
  std::map<std::string, std::string> file_of_;
  std::uint64_t n_bytes_ = 0;
};

// Normal numbers from a counter: SplitMix64 and Box-Muller.
class RandomSource : public TensorSource {
 public:
  RandomSource(Dtype dtype, std::uint64_t seed) : dtype_(dtype), state_(seed) {}

  WeightView get(const std::string& name, std::int64_t n_rows, std::int64_t n_cols) override {
    const bool is_norm = name.find("norm") != std::string::npos;
    auto& bytes =
        tensors_.emplace_back(static_cast<std::size_t>(n_rows * n_cols) * size_of(dtype_));
    const double scale = is_norm ? 0.1 : 1.0 / std::sqrt(static_cast<double>(n_cols));
    for (std::int64_t i = 0; i < n_rows * n_cols; ++i) {
      const auto value = static_cast<float>(normal() * scale + (is_norm ? 1.0 : 0.0));
      std::byte* to = bytes.data() + static_cast<std::size_t>(i) * size_of(dtype_);
      if (dtype_ == Dtype::f32) {
        std::memcpy(to, &value, 4);
      } else {
        const std::uint16_t bits = f32_to_bf16(value);
        std::memcpy(to, &bits, 2);
      }
    }
    n_bytes_ += bytes.size();
    return {bytes.data(), dtype_, n_rows, n_cols};
  }

  std::vector<std::vector<std::byte>> take_tensors() { return std::move(tensors_); }
  std::uint64_t n_bytes() const { return n_bytes_; }

 private:
  double uniform() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return (static_cast<double>((x ^ (x >> 31)) >> 11) + 0.5) * 0x1.0p-53;
  }
  double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    const double radius = std::sqrt(-2 * std::log(uniform()));
    const double angle = 2 * std::numbers::pi * uniform();
    spare_ = radius * std::sin(angle);
    has_spare_ = true;
    return radius * std::cos(angle);
  }

  Dtype dtype_;
  std::uint64_t state_;
  bool has_spare_ = false;
  double spare_ = 0;
  std::vector<std::vector<std::byte>> tensors_;
  std::uint64_t n_bytes_ = 0;
};

}  // namespace

ModelWeights ModelWeights::open(const std::string& folder, const ModelConfig& config) {
  ModelWeights weights;
  FileSource source(folder);
  collect(config, source, weights);
  weights.total_bytes_ = source.n_bytes();
  weights.files_ = std::make_shared<std::map<std::string, SafetensorsFile>>(source.take_files());
  return weights;
}

ModelWeights ModelWeights::random(const ModelConfig& config, Dtype dtype, std::uint64_t seed) {
  if (dtype == Dtype::f16) fail(Exit::usage, "random weights come in f32 and bf16");
  ModelWeights weights;
  RandomSource source(dtype, seed);
  collect(config, source, weights);
  weights.total_bytes_ = source.n_bytes();
  weights.owned_ = std::make_shared<std::vector<std::vector<std::byte>>>(source.take_tensors());
  return weights;
}

std::vector<const MappedFile*> ModelWeights::files() const {
  std::vector<const MappedFile*> files;
  if (!files_) return files;
  for (const auto& [name, file] : *files_) files.push_back(&file.file());
  return files;
}

}  // namespace starattn
