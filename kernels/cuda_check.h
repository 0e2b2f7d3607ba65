// SPDX-License-Identifier: Apache-2.0
// Turns CUDA's return codes into exceptions that say what was tried.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "launch.h"

namespace starattn::kernels {

inline void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw CudaFailure(std::string(what) + ": " + cudaGetErrorName(status) + ", " +
                    cudaGetErrorString(status));
}

// Of the current device.
inline int device_attribute(cudaDeviceAttr attribute, const char* what) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), what);
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), what);
  return value;
}

// After a launch.
inline void check_launch(const char* kernel) {
  check_cuda(cudaGetLastError(), kernel);
}

// Of the current device, which is one for all of a process.
inline int n_multiprocessors() {
  static const int n =
      device_attribute(cudaDevAttrMultiProcessorCount, "asking for multiprocessors");
  return n;
}

}  // namespace starattn::kernels
