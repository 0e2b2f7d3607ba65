// SPDX-License-Identifier: Apache-2.0
// FP8 matrices made of wider ones (--weights fp8): a scale for each row, a power of two.
#pragma once

#include <map>
#include <memory>

#include "backend/tensors.h"

namespace starattn {

class MadeFp8 {
 public:
  // A matrix of the same shape, whose numbers fill() makes. The wide one outlives this.
  WeightView add(const WeightView& wide);
  // What a matrix, or some rows of one, is made of; absent where it was not made here.
  WeightView source_of(const WeightView& part) const;
  void fill(const WeightView& part);

 private:
  struct Matrix {
    WeightView wide;
    std::unique_ptr<std::byte[]> values;
    std::unique_ptr<float[]> scales;  // [n_rows]
  };
  std::map<const std::byte*, Matrix> matrices_;  // by their values
};

}  // namespace starattn
