// SPDX-License-Identifier: Apache-2.0
// One CUDA device with one stream, on which everything runs in order, and a stream each direction
// for copies beside it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/scratch.h"

namespace starattn::cuda {

// Throws Error(unfit) saying what was tried and what CUDA answered.
void check(cudaError_t status, const char* what);

class Device {
 public:
  explicit Device(int index);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  cudaStream_t stream() const { return stream_; }
  cudaStream_t copy_stream(CopyDirection direction) { return lane(direction).stream; }
  std::uint64_t memory_bytes() const { return memory_bytes_; }
  std::uint64_t free_bytes() const;  // what the pool holds back included
  std::uint64_t peak_bytes() const;  // of the pool, and what lies outside it
  void count_outside_pool(std::size_t n_bytes) { outside_pool_ += n_bytes; }
  const std::string& name() const { return name_; }

  Buffer allocate(std::size_t n_bytes);  // from the stream's pool: cheap, freed in stream order
  Buffer scratch(std::size_t n_bytes) { return scratch_.take(n_bytes); }  // as Scratch has it
  void upload(std::span<const std::byte> host, std::byte* device);  // host may be reused at once
  void upload_later(std::span<const std::byte> host, std::byte* device);  // in stream order
  void download(const std::byte* device, std::span<std::byte> host);
  void download_later(const std::byte* device, std::span<std::byte> host);  // pinned
  void copy_after_operations(CopyDirection direction, std::span<const std::byte> from,
                             std::byte* to);
  void order_after_copies(CopyDirection direction);
  void copy_now(CopyDirection direction, std::span<const std::byte> from, std::byte* to);
  bool copies_done(CopyDirection direction);
  std::uint64_t mark();
  bool is_reached(std::uint64_t mark);
  void await(std::uint64_t mark);
  void synchronize(const std::function<void()>& poll);
  // What the operations put on the stream, instead of putting it there: launched once, or never,
  // before the next is recorded. They copy nothing between host and device but small uploads.
  cudaGraph_t record(const std::function<void()>& operations);

 private:
  // A stream for the copies of one direction, and the event that one stream hands to the other.
  struct CopyLane {
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
  };
  CopyLane& lane(CopyDirection direction) { return lanes_[static_cast<int>(direction)]; }
  Buffer allocate_from_pool(std::size_t n_bytes);
  static void free_in_order(void* memory, void* device);
  void copy_to_host(const std::byte* device, std::span<std::byte> host);
  void take_first_mark();  // which is reached

  cudaStream_t stream_ = nullptr;
  CopyLane lanes_[2];
  std::deque<cudaEvent_t> marks_;  // on the stream, in its order, not known to be reached
  std::uint64_t n_reached_ = 0;    // marks before these
  std::vector<cudaEvent_t> spare_events_;
  bool is_recording_ = false;
  std::vector<void*> freed_;  // while the last record() was made, whose operations may use it
  cudaMemPool_t pool_ = nullptr;
  std::uint64_t memory_bytes_ = 0;
  std::uint64_t outside_pool_ = 0;
  std::string name_;
  Scratch scratch_{[this](std::size_t n_bytes) { return allocate_from_pool(n_bytes); }};
};

}  // namespace starattn::cuda
