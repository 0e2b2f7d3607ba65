// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/kernels.h"

#include <bit>
#include <cmath>
#include <cstring>

#define STARATTN_LANES 8
#define STARATTN_ROWS 6
#define STARATTN_VECTORS 2

namespace starattn::cpu {
namespace {
#include "backend/cpu/kernels.inl"
}  // namespace

const Kernels& avx2_kernels() {
  static constexpr Kernels kKernels{"AVX2",  multiply, dot_rows, exponentials,
                                    maximum, widen,    widen_f8, swiglu};
  return kKernels;
}

}  // namespace starattn::cpu
