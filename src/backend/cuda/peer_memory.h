// SPDX-License-Identifier: Apache-2.0
// GPU memory that other processes of the node map (CUDA IPC). Not from the stream's pool, whose
// memory cannot be opened by others.
#pragma once

#include <cstddef>
#include <utility>

#include "backend/peer_links.h"

namespace starattn::cuda {

// Of this process. Move-only.
class PeerMemory {
 public:
  PeerMemory() = default;
  // Zeroes. Throws Error(unfit) naming what it is for.
  PeerMemory(std::size_t n_bytes, const char* what);
  ~PeerMemory();
  PeerMemory(PeerMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  PeerMemory& operator=(PeerMemory&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  PeerAddress address() const;

 private:
  void* data_ = nullptr;
};

// Another process's, mapped here. Move-only.
class PeerView {
 public:
  PeerView() = default;
  // Throws Error(unfit) saying what keeps the two devices apart. mine: of any memory here.
  PeerView(const PeerAddress& theirs, const PeerAddress& mine);
  ~PeerView();
  PeerView(PeerView&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  PeerView& operator=(PeerView&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
};

}  // namespace starattn::cuda
