// SPDX-License-Identifier: Apache-2.0
// Where the tensors of a model come from: files or a random generator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/weights.h"

namespace starattn {

// Names are in Hugging Face's spelling: "model.norm.weight".
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  WeightView matrix(const std::string& name, std::int64_t n_rows, std::int64_t n_cols) {
    return view(name, {n_rows, n_cols});
  }
  WeightView vector(const std::string& name, std::int64_t n) { return view(name, {n}); }
  std::uint64_t n_bytes() const { return n_bytes_; }  // of all tensors given out

 protected:
  struct Tensor {
    const std::byte* data;
    Dtype dtype;
  };

 private:
  virtual Tensor find(const std::string& name, const std::vector<std::int64_t>& shape) = 0;

  WeightView view(const std::string& name, const std::vector<std::int64_t>& shape) {
    const Tensor tensor = find(name, shape);
    const WeightView weight = {tensor.data, tensor.dtype, shape.size() == 1 ? 1 : shape.front(),
                               shape.back()};
    n_bytes_ += weight.n_bytes();
    return weight;
  }

  std::uint64_t n_bytes_ = 0;
};

}  // namespace starattn
