// SPDX-License-Identifier: Apache-2.0
// The vectorised inner loops of the CPU backend. They are written once (kernels.inl, GCC vector
// extensions) and compiled for several instruction sets; best_kernels() picks one when the program
// runs.
//
// Every result element is one chain of operations in a fixed order, so its bits depend on its own
// inputs alone, never on the rows beside it. They do differ between instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace starattn::cpu {

struct Kernels {
  const char* name;  // "AVX-512"

  // c[m, n] = a[m, k] b[k, n], or c += with `add`; row-major with leading dimensions. n: multiple
  // of 16.
  void (*multiply)(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                   std::int64_t ldc, std::int64_t m, std::int64_t n, std::int64_t k, bool add);

  // y[i, j] = sum_k x[i, k] w[j, k]: rows of x against rows of w in its own dtype (not f8), k in a
  // fixed order.
  void (*dot_rows)(const float* x, std::int64_t ldx, std::int64_t m, const std::byte* w,
                   std::int64_t ldw, Dtype dtype, std::int64_t n, std::int64_t k, float* y,
                   std::int64_t ldy);

  // s[0, n) <- exp(scale * s - max) for the first n_visible, 0 beyond; returns the sum. n: multiple
  // of 16.
  float (*exponentials)(float* s, std::int64_t n, std::int64_t n_visible, float scale, float max);
  float (*maximum)(const float* s, std::int64_t n);

  void (*widen)(const std::byte* from, Dtype dtype, std::int64_t n, float* to);  // to fp32; not f8
  // Of f8, times a scale.
  void (*widen_f8)(const std::byte* from, float scale, std::int64_t n, float* to);
  void (*swiglu)(const float* gate, const float* up, std::int64_t n, float* y);  // silu(gate) * up
};

const Kernels& portable_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

// The widest that this processor has; STARATTN_CPU=portable|avx2|avx512 asks for another. Throws
// Error(usage) for an unknown name, Error(unfit) for one that the processor lacks.
const Kernels& best_kernels();

}  // namespace starattn::cpu
