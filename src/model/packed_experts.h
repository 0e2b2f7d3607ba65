// SPDX-License-Identifier: Apache-2.0
// Experts whose files keep all of a layer in one tensor (GPT-OSS, Qwen3-VL), not as matrices: as
// MXFP4, blocks of 32 numbers of 4 bits that share a power of two (OCP Microscaling Formats), or
// as wide or FP8 numbers, input by output. Here every expert has matrices of its own, [n_out,
// n_in], whose numbers are made where they are asked for: FP8 of MXFP4, else as they are.
//
// A row's FP8 numbers share the power of two of f8_exponent(). They are exactly those of MXFP4 in
// all blocks whose power of two is at least 2^-15 of the row's largest number; below that they are
// rounded, by less than 2^-17 of it.
#pragma once

#include <map>
#include <memory>
#include <span>

#include "backend/tensors.h"

namespace starattn {

class PackedExperts {
 public:
  static constexpr std::int64_t kBlock = 32;  // numbers that share a scale

  // The matrices of all experts in the files. The bytes outlive this.
  struct Source {
    const std::byte* values = nullptr;  // MXFP4: [n_experts, n_out, n_in / 32, 16]; else
                                        // [n_experts, n_in, n_out]
    const std::byte* scales = nullptr;  // MXFP4: [n_experts, n_out, n_in / 32]; else null
    Dtype dtype = Dtype::f8;            // of the matrices
    std::int64_t n_out = 0, n_in = 0;
    const float* expert_scales = nullptr;  // where the files have FP8: [n_experts]
  };
  // Of one expert: rows first, first + step, ... of its n_out.
  WeightView add(const Source& source, std::int64_t expert, std::int64_t first, std::int64_t step);

  bool has(const WeightView& part) const { return find(part) != nullptr; }
  // Of the matrix that has this part. What its files hold of it and of those beside it.
  std::span<const std::byte> bytes_in_file(const WeightView& part) const;
  void fill(const WeightView& part) const;  // nothing where it is not one of these

 private:
  struct Matrix {
    Source source;
    std::int64_t expert, first, step, n_rows;
    std::unique_ptr<std::byte[]> numbers;
    std::unique_ptr<float[]> row_scales;  // of MXFP4: [n_rows]
  };
  const Matrix* find(const WeightView& part) const;

  std::map<const std::byte*, Matrix> matrices_;  // by their numbers
};

}  // namespace starattn
