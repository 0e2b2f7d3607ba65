// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace starattn::cpu {

struct Kernels {
  const char* name;  // "AVX-512"
  void (*multiply)(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c, std::int64_t ldc,
                   std::int64_t m, std::int64_t n, std::int64_t k, bool add);
  void (*dot_rows)(const float* x, std::int64_t ldx, std::int64_t m, const std::byte* w, std::int64_t ldw,
                   Dtype dtype, std::int64_t n, std::int64_t k, float* y, std::int64_t ldy);
  float (*exponentials)(float* s, std::int64_t n, std::int64_t n_visible, float scale, float max);
  float (*maximum)(const float* s, std::int64_t n);
  void (*widen)(const std::byte* from, Dtype dtype, std::int64_t n, float* to);
  void (*swiglu)(const float* gate, const float* up, std::int64_t n, float* y);
};

const Kernels& portable_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& best_kernels();

}  // namespace starattn::cpu
