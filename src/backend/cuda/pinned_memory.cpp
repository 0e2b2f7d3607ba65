// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/pinned_memory.h"

#include <cuda_runtime.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/cores.h"
#include "base/error.h"
#include "base/text.h"

namespace starattn::cuda {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kBytesPerThread = 64 << 20;  // below, starting a thread costs more

void touch(std::byte* first, std::size_t n_bytes) {
  for (std::size_t at = 0; at < n_bytes; at += kPage)
    static_cast<volatile std::byte*>(first)[at] = std::byte{0};
}

void touch_on_all_cores(std::byte* memory, std::size_t n_bytes) {
  const auto n_cores = static_cast<std::size_t>(n_usable_cores());
  const std::size_t n_threads = std::clamp<std::size_t>(n_bytes / kBytesPerThread, 1, n_cores);
  const std::size_t part = (n_bytes / n_threads / kPage + 1) * kPage;
  std::vector<std::jthread> threads;
  for (std::size_t at = 0; at < n_bytes; at += part)
    threads.emplace_back([=] { touch(memory + at, std::min(part, n_bytes - at)); });
}

// A copy that was begun ahead may still be on its way.
void unpin(void* memory, void*) {
  cudaDeviceSynchronize();
  cudaHostUnregister(memory);
}

// context: the size, as Buffer hands it back.
void free_pinned(void* memory, void* context) {
  unpin(memory, nullptr);
  ::munmap(memory, reinterpret_cast<std::uintptr_t>(context));
}

void register_pages(void* memory, std::size_t n_bytes) {
  const cudaError_t status = cudaHostRegister(memory, n_bytes, cudaHostRegisterDefault);
  if (status == cudaSuccess) return;
  cudaGetLastError();  // not sticky
  fail(
      Exit::unfit,
      "pinning {} of host memory: {}. Raise 'ulimit -l'; --kv-memory device and fewer ranks a node "
      "need less",
      human_bytes(n_bytes), cudaGetErrorString(status));
}

}  // namespace

Buffer pinned_memory(std::size_t n_bytes) {
  const std::size_t n_mapped = (std::max<std::size_t>(n_bytes, 1) + kPage - 1) / kPage * kPage;
  void* memory =
      ::mmap(nullptr, n_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    fail(Exit::unfit, "out of host memory: {} asked for. Use more nodes or --kv-memory device",
         human_bytes(n_bytes));
  ::madvise(memory, n_mapped, MADV_HUGEPAGE);  // a wish
  touch_on_all_cores(static_cast<std::byte*>(memory), n_mapped);
  try {
    register_pages(memory, n_mapped);
  } catch (...) {
    ::munmap(memory, n_mapped);
    throw;
  }
  return {memory, n_bytes, free_pinned, reinterpret_cast<void*>(n_mapped)};
}

Buffer PinnedPool::allocate(std::size_t n_bytes) {
  if (n_bytes < kLeastBytes) return pinned_memory(n_bytes);
  const auto fits = std::ranges::find_if(
      waiting_, [&](const auto& lent) { return lent->memory.n_bytes() == n_bytes; });
  std::unique_ptr<Lent> lent;
  if (fits != waiting_.end()) {
    lent = std::move(*fits);
    waiting_.erase(fits);
  } else {
    waiting_.clear();
    lent.reset(new Lent{this, pinned_memory(n_bytes)});
  }
  std::byte* const data = lent->memory.data();
  return {data, n_bytes, take_back, lent.release()};
}

void PinnedPool::take_back(void*, void* lent) {
  cudaDeviceSynchronize();  // a copy that was begun ahead may still be on its way
  std::unique_ptr<Lent> given(static_cast<Lent*>(lent));
  PinnedPool& pool = *given->pool;
  pool.waiting_.push_back(std::move(given));
}

Buffer pin(std::span<std::byte> memory) {
  register_pages(memory.data(), memory.size());
  return {memory.data(), memory.size(), unpin};
}

}  // namespace starattn::cuda
