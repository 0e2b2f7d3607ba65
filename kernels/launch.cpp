// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "cuda_check.h"
#include "launch.cuh"

namespace starattn::kernels {

bool device_overlaps_launches() {
  static const bool overlaps = [] {
    int device = 0, major = 0;
    check_cuda(cudaGetDevice(&device), "asking for the device");
    check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
               "asking for the compute capability");
    return major >= 9;
  }();
  return overlaps;
}

}  // namespace starattn::kernels
