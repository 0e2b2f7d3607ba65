// SPDX-License-Identifier: Apache-2.0
// Random tensors for benchmarks and tests: the same on every machine, about a second for each few
// hundred million values.
#pragma once

#include <memory>

#include "model/weight_source.h"

namespace starattn {

// Matrices and biases about 0 with a deviation of 1 / sqrt(n_cols), so that a layer keeps the scale
// of what goes through it; norms about 1 with a deviation of 0.1.
class RandomWeights : public WeightSource {
 public:
  using Owned = std::vector<std::unique_ptr<std::byte[]>>;

  RandomWeights(Dtype dtype, std::uint64_t seed) : dtype_(dtype), seed_(seed) {}

  Owned take() { return std::move(owned_); }

 private:
  Tensor find(const std::string& name, const std::vector<std::int64_t>& shape) override;

  Dtype dtype_;
  std::uint64_t seed_;
  Owned owned_;
};

}  // namespace starattn
