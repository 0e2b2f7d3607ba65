// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (RoFormer, arXiv 2104.09864) in the variants whose frequencies do not
// depend on the sequence length: standard, linear, llama3, yarn (arXiv 2309.00071), longrope (arXiv
// 2402.13753) for the full length, and none, whose angles are all 0.
#pragma once

#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"

namespace starattn {

// What q is multiplied by: 1 + beta log(1 + floor(position / original_positions)); 1 without beta.
float query_scale(const RopeConfig& config, std::int64_t position);

class Rope {
 public:
  // q and k are multiplied by `scale` as they are rotated.
  Rope(const RopeConfig& config, std::int64_t head_dim, double scale = 1);

  // cos and sin of every pair of a head (Backend::rope) for positions first, first + 1, ...; angles
  // in fp64, so they are right at ten million. cos, sin: [n_positions, head_dim / 2] fp32, scaled
  // by attention_scaling(), and where nothing is rotated 1 and 0, scaled by `scale`. A position's
  // bits do not depend on where the table starts.
  void table(std::int64_t first_position, std::int64_t n_positions, std::span<float> cos,
             std::span<float> sin) const;

  // [head_dim / 2]; 0 of the pairs that are not rotated
  std::span<const double> frequencies() const { return frequencies_; }
  // scale; more with yarn and longrope
  double attention_scaling() const { return attention_scaling_; }

 private:
  std::vector<double> frequencies_;  // radians a position
  double attention_scaling_ = 1.0;   // of cos and sin
  double scale_ = 1.0;               // of the pairs from n_rotated_ on
  std::size_t n_rotated_ = 0;
  std::vector<std::complex<double>> steps_;  // [kStride, head_dim / 2]: e^(i step frequency)
};

}  // namespace starattn
