// SPDX-License-Identifier: Apache-2.0
// A folder's safetensors: model.safetensors, or the shards that model.safetensors.index.json names.
#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

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
  // That the files hold tensors of, behind this prefix, whatever the config says.
  std::int64_t n_layers(const std::string& prefix) const;

  // The files, by name; the tensors given out lie in them.
  std::map<std::string, SafetensorsFile> take() { return std::move(files_); }
  // The scales of the tensors given out, in fp32.
  std::vector<std::unique_ptr<std::byte[]>> take_scales() { return std::move(scales_); }

 private:
  Tensor find(const std::string& name, const std::vector<std::int64_t>& shape) override;
  void open_shards();
  const SafetensorsFile& file_with(const std::string& tensor) const;
  const TensorView& tensor_of(const SafetensorsFile& file, const std::string& name) const;
  WeightScales scales_of(const std::string& name, const std::vector<std::int64_t>& shape);

  std::string folder_;
  Fp8Config fp8_;
  std::vector<std::unique_ptr<std::byte[]>> scales_;
  std::string index_path_;  // empty: a single file
  std::map<std::string, SafetensorsFile> files_;
  std::unordered_map<std::string, const SafetensorsFile*> file_of_tensor_;  // of sharded models
};

}  // namespace starattn
