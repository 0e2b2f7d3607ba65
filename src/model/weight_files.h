// SPDX-License-Identifier: Apache-2.0
// A folder's safetensors: model.safetensors, or the shards that model.safetensors.index.json names.
#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "model/packed_experts.h"
#include "model/safetensors.h"
#include "model/weight_source.h"

namespace starattn {

// Pages are left to the kernel, without madvise: a layer's matrices lie together and are read front
// to back, which is what read-ahead is for, and asking for whole files would read a model of many
// gigabytes for commands that only look at its shapes.
class WeightFiles : public WeightSource {
 public:
  explicit WeightFiles(const std::string& folder, Fp8Config fp8 = {});

  bool has(const std::string& name) const override;
  // Each as tensors of its own, or one tensor of each kind (packed_experts.h): with biases, rows of
  // gate and up in turn (GPT-OSS); without, gate's in front of up's (Qwen3-VL).
  std::vector<Expert> experts(const std::string& prefix, const MixtureConfig& mixture,
                              std::int64_t hidden) override;
  // That the files hold tensors of, behind this prefix, whatever the config says.
  std::int64_t n_layers(const std::string& prefix) const;
  // Weights, biases and sinks of the first layers that were not given out: parts that others of
  // this architecture have.
  std::vector<std::string> left_out(const std::string& prefix, std::int64_t n_layers) const;

  // The files, by name; the tensors given out lie in them.
  std::map<std::string, SafetensorsFile> take() { return std::move(files_); }
  // The scales of the tensors given out, in fp32.
  std::vector<std::unique_ptr<std::byte[]>> take_scales() { return std::move(scales_); }
  // The matrices of the experts given out, if there are any.
  std::shared_ptr<PackedExperts> take_packed() { return std::move(packed_); }

 private:
  Tensor find(const std::string& name, const std::vector<std::int64_t>& shape) override;
  void open_shards();
  const SafetensorsFile& file_with(const std::string& tensor) const;
  const TensorView& tensor_of(const SafetensorsFile& file, const std::string& name) const;
  WeightScales scales_of(const std::string& name, const std::vector<std::int64_t>& shape);
  void check_says_how_scaled(const std::string& matrix) const;
  // So many of a tensor's, as fp32.
  const float* read_scales(const std::string& name, std::size_t n);
  const float* scales_of_experts(const std::string& name, std::int64_t n_experts);
  // Of FP8 matrices [n_experts, n_out, n_in] with scales for blocks: those of the first.
  WeightScales block_scales_of_experts(const std::string& name, std::int64_t n_experts,
                                       std::int64_t n_out, std::int64_t n_in);

  std::vector<Expert> experts_in_turn(const std::string& prefix, const MixtureConfig& mixture,
                                      std::int64_t hidden);
  std::vector<Expert> halved_experts(const std::string& prefix, const MixtureConfig& mixture,
                                     std::int64_t hidden);
  // One of all experts, which lie as they are or, are_turned, input by output.
  std::vector<WeightView> matrices(const std::string& name, std::int64_t n_experts,
                                   std::int64_t n_out, std::int64_t n_in, bool are_turned);
  // A matrix of all experts in one tensor, wide or FP8 (ModelOpt), or two, where there is MXFP4.
  PackedExperts::Source packed(const std::string& name, std::int64_t n_experts, std::int64_t n_out,
                               std::int64_t n_in);
  std::string name_of_packed(const std::string& name) const;  // of the tensor with its numbers
  // Of a vector of all experts: numbers first, first + step, ... of one, which get memory of their
  // own.
  WeightView bias_of(const std::string& name, const Tensor& all, std::int64_t n_all,
                     std::int64_t expert, std::int64_t first, std::int64_t step);

  std::string folder_;
  Fp8Config fp8_;
  std::vector<std::unique_ptr<std::byte[]>> scales_;  // and biases of experts
  std::shared_ptr<PackedExperts> packed_;
  std::string index_path_;  // empty: a single file
  std::map<std::string, SafetensorsFile> files_;
  std::unordered_map<std::string, const SafetensorsFile*> file_of_tensor_;  // of sharded models
};

}  // namespace starattn
