// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/device.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "small_copies.h"

namespace starattn::cuda {
namespace {

// Whether a kernel may copy it (kernels/small_copies.h).
bool is_small(const void* to, const void* from, std::size_t n_bytes) {
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 4 == 0; };
  return n_bytes <= kernels::kMostSmallBytes && aligned(to) && aligned(from);
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  fail(Exit::unfit, "{}: {}, {}", what, cudaGetErrorName(status), cudaGetErrorString(status));
}

Device::Device(int index) {
  check(cudaSetDevice(index), "choosing a CUDA device");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "asking for the CUDA device's properties");
  if (properties.major < 8) {
    fail(Exit::unfit, "{} has compute capability {}.{}; 8.0 is the least. Use --device cpu",
         properties.name, properties.major, properties.minor);
  }
  name_ = properties.name;
  memory_bytes_ = properties.totalGlobalMem;
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a CUDA stream");
  for (CopyLane& copies : lanes_) {
    check(cudaStreamCreateWithFlags(&copies.stream, cudaStreamNonBlocking),
          "creating a CUDA stream");
    check(cudaEventCreateWithFlags(&copies.event, cudaEventDisableTiming), "creating a CUDA event");
  }
  check(cudaDeviceGetDefaultMemPool(&pool_, index), "finding the CUDA memory pool");
  std::uint64_t keep_all = UINT64_MAX;
  std::uint64_t nothing = 0;  // the peak is this object's, not the process's
  check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_all),
        "setting up the CUDA memory pool");
  check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrUsedMemHigh, &nothing),
        "setting up the CUDA memory pool");
}

Device::~Device() {
  scratch_.clear();
  for (void* const memory : freed_) cudaFreeAsync(memory, stream_);
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
  for (const CopyLane& copies : lanes_) {
    cudaStreamSynchronize(copies.stream);
    cudaStreamDestroy(copies.stream);
    cudaEventDestroy(copies.event);
  }
  for (const cudaEvent_t event : marks_) cudaEventDestroy(event);
  for (const cudaEvent_t event : spare_events_) cudaEventDestroy(event);
}

std::uint64_t Device::free_bytes() const {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for free GPU memory");
  std::uint64_t reserved = 0, used = 0;
  check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved),
        "asking the CUDA pool");
  check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used),
        "asking the CUDA pool");
  return free + (reserved - used);
}

std::uint64_t Device::peak_bytes() const {
  std::uint64_t peak = 0;
  check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemHigh, &peak), "asking the CUDA pool");
  return peak + outside_pool_;
}

// What operations that are recorded give back, those behind them may take.
Buffer Device::allocate(std::size_t n_bytes) {
  return is_recording_ ? scratch(n_bytes) : allocate_from_pool(n_bytes);
}

Buffer Device::allocate_from_pool(std::size_t n_bytes) {
  void* memory = nullptr;
  // On the stream that is recorded it would become a part of the graph.
  const cudaStream_t stream = is_recording_ ? lane(CopyDirection::to_device).stream : stream_;
  cudaError_t status = cudaMallocAsync(&memory, std::max<std::size_t>(n_bytes, 16), stream);
  if (is_recording_ && status == cudaSuccess) status = cudaStreamSynchronize(stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky
    fail(Exit::unfit,
         "out of GPU memory: {} asked for, {} of {} free. Use more ranks or a smaller --block-size",
         human_bytes(n_bytes), human_bytes(free_bytes()), human_bytes(memory_bytes_));
  }
  check(status, "allocating GPU memory");
  return {memory, n_bytes, free_in_order, this};
}

void Device::free_in_order(void* memory, void* device) {
  auto& self = *static_cast<Device*>(device);
  if (self.is_recording_) {
    self.freed_.push_back(memory);
  } else {
    cudaFreeAsync(memory, self.stream_);
  }
}

void Device::upload(std::span<const std::byte> host, std::byte* device) {
  if (host.empty()) return;
  upload_later(host, device);
  check(cudaStreamSynchronize(stream_), "copying to the GPU");
}

// From pageable memory this returns once the bytes are staged (CUDA runtime API, "API
// synchronization behavior"); from pinned memory the copy goes on by itself.
void Device::upload_later(std::span<const std::byte> host, std::byte* device) {
  if (host.empty()) return;
  if (is_small(device, nullptr, host.size()))
    return kernels::put_bytes(host.data(), host.size(), device, stream_);
  STARATTN_CHECK(!is_recording_);
  check(cudaMemcpyAsync(device, host.data(), host.size(), cudaMemcpyDefault, stream_),
        "copying to the GPU");
}

void Device::download_later(const std::byte* device, std::span<std::byte> host) {
  if (host.empty()) return;
  if (is_small(device, host.data(), host.size()))
    return kernels::fetch_bytes(device, host.size(), host.data(), stream_);
  copy_to_host(device, host);
}

void Device::copy_to_host(const std::byte* device, std::span<std::byte> host) {
  check(cudaMemcpyAsync(host.data(), device, host.size(), cudaMemcpyDefault, stream_),
        "copying from the GPU");
}

void Device::download(const std::byte* device, std::span<std::byte> host) {
  if (host.empty()) return;
  copy_to_host(device, host);
  check(cudaStreamSynchronize(stream_), "copying from the GPU");
}

void Device::copy_after_operations(CopyDirection direction, std::span<const std::byte> from,
                                   std::byte* to) {
  const CopyLane& copies = lane(direction);
  check(cudaEventRecord(copies.event, stream_), "copying beside the GPU's work");
  check(cudaStreamWaitEvent(copies.stream, copies.event, 0), "copying beside the GPU's work");
  copy_now(direction, from, to);
}

void Device::copy_now(CopyDirection direction, std::span<const std::byte> from, std::byte* to) {
  if (from.empty()) return;
  check(cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyDefault, lane(direction).stream),
        direction == CopyDirection::to_device ? "copying to the GPU" : "copying from the GPU");
}

bool Device::copies_done(CopyDirection direction) {
  const cudaError_t status = cudaStreamQuery(lane(direction).stream);
  if (status != cudaErrorNotReady) check(status, "waiting for copies");
  return status == cudaSuccess;
}

void Device::order_after_copies(CopyDirection direction) {
  const CopyLane& copies = lane(direction);
  check(cudaEventRecord(copies.event, copies.stream), "waiting for copies");
  check(cudaStreamWaitEvent(stream_, copies.event, 0), "waiting for copies");
}

std::uint64_t Device::mark() {
  cudaEvent_t event = nullptr;
  if (spare_events_.empty()) {
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating a CUDA event");
  } else {
    event = spare_events_.back();
    spare_events_.pop_back();
  }
  marks_.push_back(event);
  check(cudaEventRecord(event, stream_), "marking a point in the GPU's work");
  return n_reached_ + marks_.size();
}

bool Device::is_reached(std::uint64_t mark) {
  while (n_reached_ < mark && !marks_.empty()) {
    const cudaError_t status = cudaEventQuery(marks_.front());
    if (status == cudaErrorNotReady) return false;
    check(status, "waiting for a point in the GPU's work");
    take_first_mark();
  }
  return true;
}

void Device::await(std::uint64_t mark) {
  while (n_reached_ < mark && !marks_.empty()) {
    check(cudaEventSynchronize(marks_.front()), "waiting for a point in the GPU's work");
    take_first_mark();
  }
}

void Device::take_first_mark() {
  spare_events_.push_back(marks_.front());
  marks_.pop_front();
  ++n_reached_;
}

cudaGraph_t Device::record(const std::function<void()>& operations) {
  for (void* const memory : std::exchange(freed_, {})) cudaFreeAsync(memory, stream_);
  // Another thread's copies, on streams of their own, are none of this.
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "recording operations");
  is_recording_ = true;
  cudaGraph_t graph = nullptr;
  const auto end = [&] {
    is_recording_ = false;
    return cudaStreamEndCapture(stream_, &graph);
  };
  try {
    operations();
  } catch (...) {
    if (end() == cudaSuccess) cudaGraphDestroy(graph);
    throw;
  }
  check(end(), "recording operations");
  return graph;
}

void Device::synchronize(const std::function<void()>& poll) {
  if (!poll) return check(cudaStreamSynchronize(stream_), "waiting for the GPU");
  for (;;) {
    const cudaError_t status = cudaStreamQuery(stream_);
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) check(status, "waiting for the GPU");
    poll();
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

}  // namespace starattn::cuda
