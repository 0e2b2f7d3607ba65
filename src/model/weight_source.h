// SPDX-License-Identifier: Apache-2.0
// Where the tensors of a model come from: files or a random generator.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/weights.h"

namespace starattn {

// Names are in Hugging Face's spelling: "model.norm.weight".
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Whether there is a tensor that not every model has.
  virtual bool has(const std::string& /*name*/) const { return false; }
  WeightView matrix(const std::string& name, std::int64_t n_rows, std::int64_t n_cols) {
    return view(name, {n_rows, n_cols});
  }
  WeightView vector(const std::string& name, std::int64_t n) { return view(name, {n}); }
  // All experts of a layer, which some models keep together: here each as tensors of its own.
  // prefix: "model.layers.0.mlp.experts."
  virtual std::vector<Expert> experts(const std::string& prefix, const MixtureConfig& mixture,
                                      std::int64_t hidden);
  // Some rows of a matrix that was given out, as a tensor of its own.
  WeightView rows(const WeightView& matrix, std::int64_t first_row, std::int64_t n_rows) {
    const WeightView part = matrix.rows(first_row, n_rows);
    WeightName name = names_.at(matrix.data);
    name.name += fmt::format("[{}:{}]", first_row, first_row + n_rows);
    names_[part.data] = name;
    return part;
  }
  // Of all tensors given out, by their data.
  const std::map<const std::byte*, WeightName>& names() const { return names_; }
  std::map<const std::byte*, WeightName> take_names() { return std::move(names_); }

 protected:
  void give_name(const WeightView& view, const std::string& name, const MappedFile* file) {
    names_[view.data] = {name, file};
  }
  struct Tensor {
    const std::byte* data;
    Dtype dtype;
    const MappedFile* file = nullptr;  // that the data lies in
    WeightScales scales = {};
  };

 private:
  virtual Tensor find(const std::string& name, const std::vector<std::int64_t>& shape) = 0;

  WeightView view(const std::string& name, const std::vector<std::int64_t>& shape) {
    const Tensor tensor = find(name, shape);
    names_[tensor.data] = {name, tensor.file};
    return {tensor.data, tensor.dtype, shape.size() == 1 ? 1 : shape.front(), shape.back(),
            tensor.scales};
  }

  std::map<const std::byte*, WeightName> names_;
};

inline std::vector<Expert> WeightSource::experts(const std::string& prefix,
                                                 const MixtureConfig& mixture,
                                                 std::int64_t hidden) {
  const std::int64_t size = mixture.expert_size;
  std::vector<Expert> experts;
  for (std::int64_t e = 0; e < mixture.n_experts; ++e) {
    const std::string name = fmt::format("{}{}.", prefix, e);
    Expert expert{matrix(name + "gate_proj.weight", size, hidden),
                  matrix(name + "up_proj.weight", size, hidden),
                  matrix(name + "down_proj.weight", hidden, size)};
    if (mixture.has_biases) {
      expert.gate_bias = vector(name + "gate_proj.bias", size);
      expert.up_bias = vector(name + "up_proj.bias", size);
      expert.down_bias = vector(name + "down_proj.bias", hidden);
    }
    experts.push_back(expert);
  }
  return experts;
}

}  // namespace starattn
