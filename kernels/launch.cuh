// SPDX-License-Identifier: Apache-2.0
// Launches that overlap (programmatic dependent launch, CUDA programming guide): from compute
// capability 9.0 on a kernel's blocks may start while the last blocks of the kernel before it are
// at work. Since every such kernel waits for the end of the one before, that end is the end of all.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "cuda_check.h"

namespace starattn::kernels {

// Every thread of a kernel that launch_overlapping() starts calls this before it reads what earlier
// kernels may write, before it writes what they read or write, and before it returns. It may read
// what was written before the kernel in front of it had waited, if that waits before it lets others
// start.
__device__ __forceinline__ void await_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel's blocks may start once every block of this one has come here or returned.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether the code that runs on this device waits as above: the launches of this library must not
// overlap where it was compiled for older devices alone. Asked of one kernel for all.
bool launches_overlap(const void* any_kernel);

struct Launch {
  unsigned n_blocks = 1, n_blocks_y = 1;
  int n_threads = 1;
  std::size_t shared_bytes = 0;
  unsigned cluster_blocks = 1;  // in x; from compute capability 9.0 on
};

template <typename... Parameters, typename... Arguments>
void launch_overlapping(const char* what, void (*kernel)(Parameters...), const Launch& size,
                        Stream stream, Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned n_attributes = 0;
  if (launches_overlap(reinterpret_cast<const void*>(kernel))) {
    attributes[n_attributes].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[n_attributes++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (size.cluster_blocks > 1) {
    attributes[n_attributes].id = cudaLaunchAttributeClusterDimension;
    attributes[n_attributes++].val.clusterDim = {size.cluster_blocks, 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(size.n_blocks, size.n_blocks_y);
  config.blockDim = dim3(static_cast<unsigned>(size.n_threads));
  config.dynamicSmemBytes = size.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = n_attributes;
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), what);
}

}  // namespace starattn::kernels
