// SPDX-License-Identifier: Apache-2.0
#include "small_copies.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "launch.cuh"

namespace starattn::kernels {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ void copy(const void* from, int n_bytes, void* to) {
  const int n_words = n_bytes / 4;
  for (int i = threadIdx.x; i < n_words; i += kThreads)
    static_cast<std::uint32_t*>(to)[i] = static_cast<const std::uint32_t*>(from)[i];
  const int rest = n_words * 4 + static_cast<int>(threadIdx.x);
  if (rest < n_bytes) static_cast<char*>(to)[rest] = static_cast<const char*>(from)[rest];
}

template <int kBytes>
struct Bytes {
  alignas(4) char bytes[kBytes];
};

template <int kBytes>
__global__ void __launch_bounds__(kThreads)
    put_kernel(const __grid_constant__ Bytes<kBytes> bytes, int n_bytes, void* to) {
  let_next_kernel_start();
  await_earlier_kernels();
  copy(bytes.bytes, n_bytes, to);
}

__global__ void __launch_bounds__(kThreads) fetch_kernel(const void* from, int n_bytes, void* to) {
  let_next_kernel_start();
  await_earlier_kernels();
  copy(from, n_bytes, to);
}

void check_size(const char* what, std::size_t n_bytes) {
  if (n_bytes > kMostSmallBytes)
    throw BadShape(std::string(what) + ": at most " + std::to_string(kMostSmallBytes) +
                   " bytes, got " + std::to_string(n_bytes));
}

template <int kBytes>
void put(const void* host, std::size_t n_bytes, void* device, Stream stream) {
  Bytes<kBytes> bytes;
  std::memcpy(bytes.bytes, host, n_bytes);
  launch_overlapping("small copy", put_kernel<kBytes>, {1, 1, kThreads}, stream, bytes,
                     static_cast<int>(n_bytes), device);
}

}  // namespace

void put_bytes(const void* host, std::size_t n_bytes, void* device, Stream stream) {
  check_size("small copy to the device", n_bytes);
  constexpr int kFew = 512;
  n_bytes <= kFew ? put<kFew>(host, n_bytes, device, stream)
                  : put<static_cast<int>(kMostSmallBytes)>(host, n_bytes, device, stream);
}

void fetch_bytes(const void* device, std::size_t n_bytes, void* pinned, Stream stream) {
  check_size("small copy to the host", n_bytes);
  launch_overlapping("small copy", fetch_kernel, {1, 1, kThreads}, stream, device,
                     static_cast<int>(n_bytes), pinned);
}

}  // namespace starattn::kernels
