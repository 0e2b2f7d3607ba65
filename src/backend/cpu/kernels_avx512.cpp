// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/kernels.h"

#include <bit>
#include <cmath>
#include <cstring>

#define STARATTN_LANES 16
#define STARATTN_ROWS 8
#define STARATTN_VECTORS 3

namespace starattn::cpu {
namespace {
#include "backend/cpu/kernels.inl"
}  // namespace

const Kernels& avx512_kernels() {
  static constexpr Kernels kKernels{"AVX-512", multiply, dot_rows, exponentials,
                                    maximum,   widen,    widen_f8, swiglu};
  return kKernels;
}

}  // namespace starattn::cpu
