// SPDX-License-Identifier: Apache-2.0
#include "model/weight_files.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

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
  if (tensor.dtype_name == "F8_E4M3") return Dtype::f8;
  fail(Exit::bad_data,
       "{}: tensor '{}': expected dtype BF16, F16, F32 or F8_E4M3, got {} (weights that are "
       "quantised otherwise are not supported)",
       file.path(), name, tensor.dtype_name);
}

// What stands at a place among an FP8 matrix's scales, by how they are written.
using ScaleReader = float (*)(const std::byte* scales, std::size_t i);
template <class Number>
Number number_at(const std::byte* numbers, std::size_t i) {
  Number number{};
  std::memcpy(&number, numbers + i * sizeof(number), sizeof(number));
  return number;
}
ScaleReader scale_reader(const std::string& dtype_name) {
  using Bytes = const std::byte*;
  if (dtype_name == "F32") return number_at<float>;
  if (dtype_name == "BF16")
    return [](Bytes s, std::size_t i) { return bf16_to_f32(number_at<std::uint16_t>(s, i)); };
  if (dtype_name == "F16")
    return [](Bytes s, std::size_t i) { return f16_to_f32(number_at<std::uint16_t>(s, i)); };
  if (dtype_name == "F8_E8M0" || dtype_name == "U8")
    return [](Bytes s, std::size_t i) { return e8m0_to_f32(number_at<std::uint8_t>(s, i)); };
  return nullptr;
}

// A tensor's shape without what it has once: writers leave that out or spread numbers with it.
std::vector<std::int64_t> without_ones(std::vector<std::int64_t> shape) {
  std::erase(shape, 1);
  return shape;
}

// Of how many rows and columns of a matrix each scale is, which the shape of all says where groups
// of matrices differ.
std::pair<std::int64_t, std::int64_t> block_of(const Fp8Config& fp8,
                                               const std::vector<std::int64_t>& matrix,
                                               const std::vector<std::int64_t>& scales) {
  using Scales = Fp8Config::Scales;
  const std::pair one{matrix[0], matrix[1]}, rows{std::int64_t{1}, matrix[1]},
      blocks{fp8.block_rows, fp8.block_cols};
  if (fp8.scales == Scales::tensor) return one;
  if (fp8.scales == Scales::channel) return rows;
  if (fp8.scales == Scales::block) return blocks;
  const std::vector<std::int64_t> lengths = without_ones(scales);
  if (lengths.empty()) return one;
  return lengths == without_ones({matrix[0]}) || fp8.block_rows == 0 ? rows : blocks;
}

std::int64_t n_blocks(std::int64_t n, std::int64_t size) {
  return (n + size - 1) / size;
}

// Of a tensor's name behind `prefix`; -1: it is of none.
std::int64_t layer_of(const std::string& name, const std::string& prefix) {
  const std::string layers = prefix + "layers.";
  if (!name.starts_with(layers)) return -1;
  std::int64_t layer = 0;
  const auto parsed =
      std::from_chars(name.c_str() + layers.size(), name.c_str() + name.size(), layer);
  const bool is_number = parsed.ec == std::errc() && *parsed.ptr == '.';
  return is_number && layer >= 0 && layer < kMostLayers ? layer : -1;
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
WeightFiles::WeightFiles(const std::string& folder, Fp8Config fp8)
    : folder_(folder), fp8_(std::move(fp8)) {
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
  std::int64_t n_layers = 0;
  for (const auto& [path, file] : files_)
    for (const auto& [name, tensor] : file.tensors())
      n_layers = std::max(n_layers, layer_of(name, prefix) + 1);
  return n_layers;
}

std::vector<std::string> WeightFiles::left_out(const std::string& prefix,
                                               std::int64_t n_layers) const {
  std::vector<std::string> left_out;
  for (const auto& [path, file] : files_) {
    for (const auto& [name, tensor] : file.tensors()) {
      const std::int64_t layer = layer_of(name, prefix);
      // Rotations of q and k alike leave their products as they are.
      const bool rotates = name.ends_with("_q_attn.weight") || name.ends_with("_k_cache.weight");
      const bool computes = !rotates && (name.ends_with(".weight") || name.ends_with(".bias") ||
                                         name.ends_with(".sinks"));
      if (computes && layer >= 0 && layer < n_layers && !names().contains(tensor.data))
        left_out.push_back(name);
    }
  }
  return left_out;
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

const TensorView& WeightFiles::tensor_of(const SafetensorsFile& file,
                                         const std::string& name) const {
  const TensorView* tensor = file.find(name);
  if (!tensor) {
    fail(Exit::bad_data, "{}: tensor '{}': config.json asks for it, but the file has none{}",
         file.path(), name, whose_tensors(file));
  }
  return *tensor;
}

WeightSource::Tensor WeightFiles::find(const std::string& name,
                                       const std::vector<std::int64_t>& shape) {
  const SafetensorsFile& file = file_with(name);
  const TensorView& tensor = tensor_of(file, name);
  if (tensor.shape != shape) {
    fail(Exit::bad_data, "{}: tensor '{}': expected shape [{}], as config.json says, got [{}]",
         file.path(), name, fmt::join(shape, ", "), fmt::join(tensor.shape, ", "));
  }
  const Dtype dtype = dtype_of(tensor, file, name);
  if (dtype != Dtype::f8) return {tensor.data, dtype, &file.file()};
  if (shape.size() != 2 || name.ends_with("embed_tokens.weight")) {
    fail(Exit::bad_data,
         "{}: tensor '{}': expected dtype BF16, F16 or F32, got F8_E4M3: only the matrices of "
         "products may be FP8",
         file.path(), name);
  }
  return {tensor.data, dtype, &file.file(), scales_of(name, shape)};
}

void WeightFiles::check_says_how_scaled(const std::string& matrix) const {
  if (fp8_.scales != Fp8Config::Scales::none) return;
  fail(Exit::bad_data,
       "{}: tensor '{}' is FP8, but config.json does not say in a quantization_config how it is "
       "scaled",
       file_with(matrix).path(), matrix);
}

// Of an FP8 matrix, as config.json says that they are laid out.
WeightScales WeightFiles::scales_of(const std::string& matrix,
                                    const std::vector<std::int64_t>& shape) {
  check_says_how_scaled(matrix);
  // Method fp8 has had two names for one scale a matrix.
  const bool has_other = !has(matrix + fp8_.suffix) && has(matrix + "_scale");
  const std::string name = matrix + (has_other ? "_scale" : fp8_.suffix);
  const SafetensorsFile& file = file_with(name);
  const TensorView& tensor = tensor_of(file, name);
  const auto [block_rows, block_cols] = block_of(fp8_, shape, tensor.shape);
  WeightScales scales{nullptr, block_rows, block_cols};
  const std::vector<std::int64_t> expected = {n_blocks(shape[0], block_rows),
                                              n_blocks(shape[1], block_cols)};
  if (without_ones(tensor.shape) != without_ones(expected)) {
    fail(Exit::bad_data, "{}: tensor '{}': expected shape [{}], as config.json says, got [{}]",
         file.path(), name, fmt::join(expected, ", "), fmt::join(tensor.shape, ", "));
  }
  scales.data = read_scales(name, static_cast<std::size_t>(expected[0] * expected[1]));
  return scales;
}

const float* WeightFiles::read_scales(const std::string& name, std::size_t n) {
  const SafetensorsFile& file = file_with(name);
  const TensorView& tensor = tensor_of(file, name);
  const ScaleReader scale_at = scale_reader(tensor.dtype_name);
  if (!scale_at) {
    fail(Exit::bad_data, "{}: tensor '{}': expected dtype F32, BF16, F16, F8_E8M0 or U8, got {}",
         file.path(), name, tensor.dtype_name);
  }
  auto& memory =
      scales_.emplace_back(std::make_unique_for_overwrite<std::byte[]>(n * sizeof(float)));
  for (std::size_t i = 0; i < n; ++i) {
    const float value = scale_at(tensor.data, i);
    if (!(value > 0 && std::isfinite(value))) {
      fail(Exit::bad_data,
           "{}: tensor '{}': expected scales above 0, got {} at number {}: take the model's files "
           "from their source again",
           file.path(), name, value, i);
    }
    std::memcpy(memory.get() + i * sizeof(value), &value, sizeof(value));
  }
  return reinterpret_cast<const float*>(memory.get());
}

// One for each, or one for all.
const float* WeightFiles::scales_of_experts(const std::string& name, std::int64_t n_experts) {
  const SafetensorsFile& file = file_with(name);
  const std::vector<std::int64_t> shape = without_ones(tensor_of(file, name).shape);
  const auto n = static_cast<std::size_t>(n_experts);
  if (shape == without_ones({n_experts})) return read_scales(name, n);
  if (!shape.empty()) {
    fail(Exit::bad_data,
         "{}: tensor '{}': expected a scale, or one for each of {} experts, got [{}]", file.path(),
         name, n_experts, fmt::join(shape, ", "));
  }
  const float scale = *read_scales(name, 1);
  auto& memory =
      scales_.emplace_back(std::make_unique_for_overwrite<std::byte[]>(n * sizeof(scale)));
  auto* all = reinterpret_cast<float*>(memory.get());
  std::fill_n(all, n, scale);
  return all;
}

std::vector<Expert> WeightFiles::experts(const std::string& prefix, const MixtureConfig& mixture,
                                         std::int64_t hidden) {
  // Apart as all publish those of some families, and as most writers of FP8 leave any.
  const bool are_apart =
      has(prefix + "0.gate_proj.weight") || (!mixture.has_biases && !has(prefix + "gate_up_proj"));
  if (are_apart) return WeightSource::experts(prefix, mixture, hidden);
  return mixture.has_biases ? experts_in_turn(prefix, mixture, hidden)
                            : halved_experts(prefix, mixture, hidden);
}

std::vector<Expert> WeightFiles::halved_experts(const std::string& prefix,
                                                const MixtureConfig& mixture, std::int64_t hidden) {
  const std::int64_t n = mixture.n_experts, size = mixture.expert_size;
  const std::string both_name = prefix + "gate_up_proj", down_name = prefix + "down_proj";
  const auto lies_as = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    return tensor_of(file_with(name), name).shape == shape;
  };
  // Of a square one the other says it.
  const bool are_turned =
      !lies_as(both_name, {n, 2 * size, hidden}) || !lies_as(down_name, {n, hidden, size});
  const auto both = matrices(both_name, n, 2 * size, hidden, are_turned);
  const auto down = matrices(down_name, n, hidden, size, are_turned);
  std::vector<Expert> experts;
  for (std::size_t e = 0; e < both.size(); ++e) {
    const WeightView up = rows(both[e], size, size);  // gate last: it takes the name of the whole
    experts.push_back({rows(both[e], 0, size), up, down[e]});
  }
  return experts;
}

std::vector<WeightView> WeightFiles::matrices(const std::string& name, std::int64_t n_experts,
                                              std::int64_t n_out, std::int64_t n_in,
                                              bool are_turned) {
  const SafetensorsFile& file = file_with(name);
  const TensorView& tensor = tensor_of(file, name);
  const bool is_f8 = !are_turned && tensor.dtype_name == "F8_E4M3";
  if (are_turned && !packed_) packed_ = std::make_shared<PackedExperts>();
  const Tensor all =
      is_f8 ? Tensor{tensor.data, Dtype::f8, &file.file(),
                     block_scales_of_experts(name, n_experts, n_out, n_in)}
            : find(name, are_turned ? std::vector<std::int64_t>{n_experts, n_in, n_out}
                                    : std::vector<std::int64_t>{n_experts, n_out, n_in});
  WeightView next{all.data, all.dtype, n_out, n_in, all.scales};
  std::vector<WeightView> views;
  for (std::int64_t e = 0; e < n_experts; ++e) {
    views.push_back(are_turned ? packed_->add({all.data, nullptr, all.dtype, n_out, n_in}, e, 0, 1)
                               : next);
    give_name(views.back(), fmt::format("{}[{}]", name, e), &file.file());
    next.data += next.n_bytes();
    if (is_f8) next.scales.data += n_blocks(n_out, all.scales.block_rows) * next.n_scales_of_row();
  }
  return views;
}

WeightScales WeightFiles::block_scales_of_experts(const std::string& name, std::int64_t n_experts,
                                                  std::int64_t n_out, std::int64_t n_in) {
  check_says_how_scaled(name);
  if (fp8_.scales != Fp8Config::Scales::block) {
    fail(Exit::bad_data,
         "{}: tensor '{}': experts in one tensor are read with scales for blocks of them, but "
         "config.json says others",
         file_with(name).path(), name);
  }
  const std::string of_scales = name + fp8_.suffix;
  const std::vector<std::int64_t> expected = {n_experts, n_blocks(n_out, fp8_.block_rows),
                                              n_blocks(n_in, fp8_.block_cols)};
  const SafetensorsFile& file = file_with(of_scales);
  const std::vector<std::int64_t>& shape = tensor_of(file, of_scales).shape;
  if (shape != expected) {
    fail(Exit::bad_data, "{}: tensor '{}': expected shape [{}], as config.json says, got [{}]",
         file.path(), of_scales, fmt::join(expected, ", "), fmt::join(shape, ", "));
  }
  const std::int64_t n = expected[0] * expected[1] * expected[2];
  return {read_scales(of_scales, static_cast<std::size_t>(n)), fp8_.block_rows, fp8_.block_cols};
}

std::vector<Expert> WeightFiles::experts_in_turn(const std::string& prefix,
                                                 const MixtureConfig& mixture,
                                                 std::int64_t hidden) {
  if (!packed_) packed_ = std::make_shared<PackedExperts>();
  const std::int64_t n_experts = mixture.n_experts, size = mixture.expert_size;
  const std::string both = prefix + "gate_up_proj", down = prefix + "down_proj";
  const PackedExperts::Source gate_up = packed(both, n_experts, 2 * size, hidden);
  const PackedExperts::Source down_proj = packed(down, n_experts, hidden, size);
  const Tensor both_bias = find(both + "_bias", {n_experts, 2 * size});
  const Tensor down_bias = find(down + "_bias", {n_experts, hidden});
  std::vector<Expert> experts;
  for (std::int64_t e = 0; e < n_experts; ++e) {
    const auto matrix = [&](const PackedExperts::Source& source, const std::string& name,
                            std::int64_t first, std::int64_t step, const char* part) {
      const WeightView view = packed_->add(source, e, first, step);
      const SafetensorsFile& file = file_with(name_of_packed(name));
      give_name(view, fmt::format("{}[{}]{}", name, e, part), &file.file());
      return view;
    };
    experts.push_back({matrix(gate_up, both, 0, 2, ", gate"), matrix(gate_up, both, 1, 2, ", up"),
                       matrix(down_proj, down, 0, 1, ""),
                       bias_of(both + "_bias", both_bias, 2 * size, e, 0, 2),
                       bias_of(both + "_bias", both_bias, 2 * size, e, 1, 2),
                       bias_of(down + "_bias", down_bias, hidden, e, 0, 1)});
  }
  return experts;
}

std::string WeightFiles::name_of_packed(const std::string& name) const {
  return has(name + "_blocks") ? name + "_blocks" : name;
}

PackedExperts::Source WeightFiles::packed(const std::string& name, std::int64_t n_experts,
                                          std::int64_t n_out, std::int64_t n_in) {
  const auto bytes = [&](const std::string& tensor_name, const char* dtype,
                         const std::vector<std::int64_t>& shape) {
    const SafetensorsFile& file = file_with(tensor_name);
    const TensorView& tensor = tensor_of(file, tensor_name);
    if (tensor.shape != shape || tensor.dtype_name != dtype) {
      fail(Exit::bad_data,
           "{}: tensor '{}': expected experts as {} of shape [{}] by config.json, got {} of shape "
           "[{}]",
           file.path(), tensor_name, dtype, fmt::join(shape, ", "), tensor.dtype_name,
           fmt::join(tensor.shape, ", "));
    }
    return tensor.data;
  };
  const std::string scales = name + "_weight_scale";
  if (has(scales)) {
    check_says_how_scaled(name);
    return {bytes(name, "F8_E4M3", {n_experts, n_in, n_out}),
            nullptr,
            Dtype::f8,
            n_out,
            n_in,
            scales_of_experts(scales, n_experts)};
  }
  if (!has(name + "_blocks")) {
    const Tensor wide = find(name, {n_experts, n_in, n_out});
    return {wide.data, nullptr, wide.dtype, n_out, n_in};
  }
  constexpr std::int64_t kBlock = PackedExperts::kBlock;
  if (n_in % kBlock != 0) {
    fail(Exit::bad_data,
         "{}: tensor '{}_blocks': rows of {} numbers are no blocks of {}, which MXFP4 has",
         file_with(name + "_blocks").path(), name, n_in, kBlock);
  }
  return {bytes(name + "_blocks", "U8", {n_experts, n_out, n_in / kBlock, kBlock / 2}),
          bytes(name + "_scales", "U8", {n_experts, n_out, n_in / kBlock}), Dtype::f8, n_out, n_in};
}

WeightView WeightFiles::bias_of(const std::string& name, const Tensor& all, std::int64_t n_all,
                                std::int64_t expert, std::int64_t first, std::int64_t step) {
  const std::size_t number = size_of(all.dtype);
  const std::int64_t n = (n_all - first + step - 1) / step;
  auto& memory = scales_.emplace_back(
      std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(n) * number));
  for (std::int64_t i = 0; i < n; ++i) {
    const auto from = static_cast<std::size_t>(expert * n_all + first + i * step) * number;
    std::memcpy(memory.get() + static_cast<std::size_t>(i) * number, all.data + from, number);
  }
  const WeightView view{memory.get(), all.dtype, 1, n};
  give_name(view, fmt::format("{}[{}]", name, expert), all.file);
  return view;
}

}  // namespace starattn
