// SPDX-License-Identifier: Apache-2.0
#include "model/model_folder.h"

#include <filesystem>
#include <fstream>
#include <string_view>

#include "base/foreign_file.h"

namespace starattn {
namespace {

// A file by which a format is known: its name, or how it begins and ends around a "*".
struct Mark {
  std::string_view name;
  const char* what;
};

constexpr Mark kMarks[] = {
    {"adapter_config.json",
     "a LoRA adapter: merge it into its base model (peft: merge_and_unload) and save that one"},
    {"adapter_model.safetensors",
     "a LoRA adapter: merge it into its base model (peft: merge_and_unload) and save that one"},
    {"*.gguf",
     "a model for llama.cpp: take the model's folder in the format of Hugging Face, with "
     "safetensors"},
    {"consolidated*",
     "the publisher's own format, with other names of tensors: take the model's folder in the "
     "format of Hugging Face (config.json, model*.safetensors, tokenizer.json)"},
    {"params.json",
     "the settings of the publisher's own format: take the model's folder in the format of Hugging "
     "Face (config.json, model*.safetensors, tokenizer.json)"},
    {"pytorch_model*.bin*",
     "PyTorch weights: load them with transformers (from_pretrained) and save them as safetensors "
     "(save_pretrained)"},
    {"tf_model*.h5", "TensorFlow weights: save the model as safetensors"},
    {"flax_model*.msgpack", "Flax weights: save the model as safetensors"},
    {"*.onnx", "an ONNX model: take the model's folder with safetensors"},
};

bool fits(std::string_view name, std::string_view pattern) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name == pattern;
  if (!name.starts_with(pattern.substr(0, star))) return false;
  name.remove_prefix(star);
  pattern.remove_prefix(star + 1);
  for (; !name.empty(); name.remove_prefix(1)) {
    if (fits(name, pattern)) return true;
  }
  return fits(name, pattern);
}

std::string what_file_is(const std::string& path) {
  char head[64] = {};
  std::ifstream file(path, std::ios::binary);
  file.read(head, sizeof(head));
  const std::string what = what_else_it_is({head, static_cast<std::size_t>(file.gcount())});
  return what.empty() ? ", got a file: give the folder that it is in" : "; it " + what;
}

}  // namespace

std::string what_is_there_instead(const std::string& folder) {
  constexpr int kMostFiles = 10'000;
  std::error_code error;
  if (std::filesystem::is_regular_file(folder, error)) return what_file_is(folder);
  const Mark* best = nullptr;  // the first of the table
  std::string found;
  int n_files = 0;
  for (auto it = std::filesystem::directory_iterator(folder, error);
       !error && it != std::filesystem::directory_iterator() && n_files < kMostFiles;
       it.increment(error), ++n_files) {
    const std::string name = it->path().filename().string();
    for (const Mark& mark : kMarks) {
      if (best && &mark >= best) break;
      if (!fits(name, mark.name)) continue;
      best = &mark;
      found = name;
    }
  }
  return best ? ", got " + found + ": " + best->what : "";
}

}  // namespace starattn
