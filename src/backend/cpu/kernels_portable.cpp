// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/kernels.h"

#include <bit>
#include <cmath>
#include <cstring>

#define STARATTN_LANES 4
#define STARATTN_ROWS 4
#define STARATTN_VECTORS 2

namespace starattn::cpu {
namespace {
#include "backend/cpu/kernels.inl"
}  // namespace

const Kernels& portable_kernels() {
  static constexpr Kernels kKernels{"portable", multiply, dot_rows, exponentials,
                                    maximum,    widen,    widen_f8, swiglu};
  return kKernels;
}

}  // namespace starattn::cpu
