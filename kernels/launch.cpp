// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "cuda_check.h"
#include "launch.cuh"

namespace starattn::kernels {

bool launches_overlap(const void* any_kernel) {
  constexpr int kWaits = 90;  // the least target for which await_earlier_kernels() does
  static const bool overlap = [&] {
    cudaFuncAttributes compiled{};
    check_cuda(cudaFuncGetAttributes(&compiled, any_kernel), "asking for a kernel's target");
    return compiled.ptxVersion >= kWaits;  // and so the device's
  }();
  return overlap;
}

}  // namespace starattn::kernels
