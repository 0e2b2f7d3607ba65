// SPDX-License-Identifier: Apache-2.0
// What the operations take, in the kernels' own words.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "attention.h"
#include "backend/tensors.h"
#include "elementwise.h"
#include "f8_kv.h"

namespace starattn::cuda {

inline kernels::AttentionShape as_kernel(const AttentionShape& shape) {
  return {static_cast<int>(shape.n_heads), static_cast<int>(shape.n_kv_heads),
          static_cast<int>(shape.head_dim)};
}

inline kernels::Partial as_kernel(const Partial& partial) {
  return {partial.o, partial.m, partial.l};
}

inline std::vector<kernels::Merge> as_kernel(std::span<const Merge> merges) {
  std::vector<kernels::Merge> steps;
  for (const Merge& step : merges) steps.push_back({step.into, step.from});
  return steps;
}

inline kernels::HeadRows heads_of(Rows x, std::int64_t head_dim) {
  return {x.data, static_cast<int>(x.width / head_dim)};
}

inline kernels::F8Rows f8_rows(const std::byte* data, std::int64_t n_rows, const KvLayout& layout) {
  return {data, n_rows, static_cast<int>(layout.n_heads), static_cast<int>(layout.head_dim)};
}

inline float scale_of(const AttentionShape& shape) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
}

inline float* floats(const Buffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

}  // namespace starattn::cuda
