// SPDX-License-Identifier: Apache-2.0
#include "model/weight_files.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/json.h"
#include "model/model_folder.h"

namespace starattn {
namespace {

constexpr std::int64_t kMostLayers = 1 << 20;  // a number beyond is no layer's

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Dtype dtype_of(const TensorView& tensor, const SafetensorsFile& file, const std::string& name) {
  if (tensor.dtype_name == "BF16") return Dtype::bf16;
  if (tensor.dtype_name == "F16") return Dtype::f16;
  if (tensor.dtype_name == "F32") return Dtype::f32;
  fail(Exit::bad_data,
       "{}: tensor '{}': expected dtype BF16, F16 or F32, got {} (quantised weights are not "
       "supported)",
       file.path(), name, tensor.dtype_name);
}

// A file under a model's name that holds something else.
std::string whose_tensors(const SafetensorsFile& file) {
  for (const auto& [name, tensor] : file.tensors()) {
    if (name.find(".lora_A.") != std::string::npos)
      return ". It is a LoRA adapter: merge it into its base model and save that one";
    if (name == "layers.0.attention.wq.weight")
      return ". Its tensors are named as in Meta's and Mistral's own files: take the model in the "
             "format of Hugging Face";
  }
  return "";
}

}  // namespace

// As in transformers, a single file goes before an index.
WeightFiles::WeightFiles(const std::string& folder) : folder_(folder) {
  const std::string single = folder + "/model.safetensors";
  const std::string index = folder + "/model.safetensors.index.json";
  if (exists(single)) {
    files_.emplace("model.safetensors", SafetensorsFile(single));
  } else if (exists(index)) {
    index_path_ = index;
    open_shards();
  } else {
    const std::string instead = what_is_there_instead(folder);
    fail(Exit::no_input, "{}: expected model.safetensors or model.safetensors.index.json{}", folder,
         instead.empty() ? ", found neither" : instead);
  }
}

void WeightFiles::open_shards() {
  const Json index = read_json_file(index_path_, {std::size_t{64} << 20, 8});
  const JsonObject map = JsonObject(index, index_path_).get_object("weight_map");
  for (const auto& [tensor, file] : map.json().items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (!is_plain_file_name(name)) {
      fail(Exit::bad_data, "{}: tensor '{}': expected the name of a file in the folder, got {}",
           map.where(), tensor, to_line(file).substr(0, 80));
    }
    auto at = files_.find(name);
    if (at == files_.end()) at = files_.emplace(name, SafetensorsFile(folder_ + "/" + name)).first;
    file_of_tensor_.emplace(tensor, &at->second);
  }
}

bool WeightFiles::has(const std::string& name) const {
  if (index_path_.empty()) return files_.begin()->second.find(name) != nullptr;
  return file_of_tensor_.contains(name);
}

std::int64_t WeightFiles::n_layers(const std::string& prefix) const {
  const std::string layers = prefix + "layers.";
  std::int64_t n_layers = 0;
  for (const auto& [path, file] : files_) {
    for (const auto& [name, tensor] : file.tensors()) {
      if (!name.starts_with(layers)) continue;
      const char* number = name.c_str() + layers.size();
      std::int64_t layer = 0;
      const auto parsed = std::from_chars(number, name.c_str() + name.size(), layer);
      if (parsed.ec == std::errc() && *parsed.ptr == '.' && layer < kMostLayers)
        n_layers = std::max(n_layers, layer + 1);
    }
  }
  return n_layers;
}

const SafetensorsFile& WeightFiles::file_with(const std::string& tensor) const {
  if (index_path_.empty()) return files_.begin()->second;
  const auto it = file_of_tensor_.find(tensor);
  if (it == file_of_tensor_.end()) {
    fail(Exit::bad_data, "{}: tensor '{}': config.json asks for it, but no shard holds it",
         index_path_, tensor);
  }
  return *it->second;
}

WeightSource::Tensor WeightFiles::find(const std::string& name,
                                       const std::vector<std::int64_t>& shape) {
  const SafetensorsFile& file = file_with(name);
  const TensorView* tensor = file.find(name);
  if (!tensor) {
    fail(Exit::bad_data, "{}: tensor '{}': config.json asks for it, but the file has none{}",
         file.path(), name, whose_tensors(file));
  }
  if (tensor->shape != shape) {
    fail(Exit::bad_data, "{}: tensor '{}': expected shape [{}], as config.json says, got [{}]",
         file.path(), name, fmt::join(shape, ", "), fmt::join(tensor->shape, ", "));
  }
  return {tensor->data, dtype_of(*tensor, file, name), &file.file()};
}

}  // namespace starattn
