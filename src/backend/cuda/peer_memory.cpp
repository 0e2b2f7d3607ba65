// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/peer_memory.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "backend/cuda/device.h"
#include "base/error.h"

namespace starattn::cuda {

PeerMemory::PeerMemory(std::size_t n_bytes, const char* what) {
  n_bytes = std::max<std::size_t>(n_bytes, 1);
  check(cudaMalloc(&data_, n_bytes), what);
  check(cudaMemset(data_, 0, n_bytes), what);
  check(cudaDeviceSynchronize(), what);
}

PeerMemory::~PeerMemory() {
  if (data_) cudaFree(data_);
}

PeerAddress PeerMemory::address() const {
  PeerAddress address;
  cudaIpcMemHandle_t handle;
  check(cudaIpcGetMemHandle(&handle, data_), "opening this GPU's memory to other processes");
  static_assert(sizeof(handle) == sizeof(address.memory));
  std::memcpy(address.memory.data(), &handle, sizeof(handle));
  int index = 0;
  check(cudaGetDevice(&index), "asking for the CUDA device");
  check(
      cudaDeviceGetPCIBusId(address.device.data(), static_cast<int>(address.device.size()), index),
      "asking for the CUDA device's address");
  return address;
}

PeerView::PeerView(const PeerAddress& theirs, const PeerAddress& mine) {
  cudaIpcMemHandle_t handle;
  std::memcpy(&handle, theirs.memory.data(), sizeof(handle));
  const cudaError_t status = cudaIpcOpenMemHandle(&data_, handle, cudaIpcMemLazyEnablePeerAccess);
  if (status == cudaSuccess) return;
  data_ = nullptr;
  cudaGetLastError();
  fail(Exit::unfit,
       "GPU {} cannot reach the memory of GPU {}: {}, {}. Both have to be visible to each process "
       "(srun without --gpus-per-task) and able to reach each other (nvidia-smi topo -p2p w)",
       mine.device.data(), theirs.device.data(), cudaGetErrorName(status),
       cudaGetErrorString(status));
}

PeerView::~PeerView() {
  if (data_) cudaIpcCloseMemHandle(data_);
}

}  // namespace starattn::cuda
