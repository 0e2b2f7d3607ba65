// SPDX-License-Identifier: Apache-2.0
// Random tensors for benchmarks and tests: the same on every machine, about a second for each few
// hundred million values.
#pragma once

#include <map>
#include <memory>

#include "model/weight_source.h"

namespace starattn {

// Numbers are made when they are asked for, and can be forgotten again: a benchmark need not hold a
// model of 140 GB on the host.
//
// Matrices and biases about 0 with a deviation of 1 / sqrt(n_cols), so that a layer keeps the scale
// of what goes through it; norms about 1 with a deviation of 0.1.
class RandomWeights : public WeightSource {
 public:
  RandomWeights(Dtype dtype, std::uint64_t seed) : dtype_(dtype), seed_(seed) {}

  // Of a tensor that was given out, or of some rows of it.
  void fill(const WeightView& part) const;

 private:
  struct Numbers {
    std::unique_ptr<std::byte[]> memory;
    std::uint64_t stream = 0;
    float mean = 0;
    float deviation = 0;
  };
  Tensor find(const std::string& name, const std::vector<std::int64_t>& shape) override;

  Dtype dtype_;
  std::uint64_t seed_;
  std::map<const std::byte*, Numbers> tensors_;  // by their memory
};

}  // namespace starattn
