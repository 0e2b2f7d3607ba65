// SPDX-License-Identifier: Apache-2.0
// Memory for the length of an operation. What one gives back the next one takes, in the order of
// the stream and without a call to CUDA: memory that is allocated and freed there between two
// kernels keeps the second from starting early (kernels/launch.cuh).
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "backend/tensors.h"

namespace starattn {

class Scratch {
 public:
  // Pieces beyond this many bytes in all are not kept.
  static constexpr std::size_t kMostKept = std::size_t{256} << 20;

  using Allocate = std::function<Buffer(std::size_t n_bytes)>;
  explicit Scratch(Allocate allocate) : allocate_(std::move(allocate)) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // For operations of the stream alone; it is given back before this object is. There are as many
  // pieces as were ever taken at once, and they grow.
  Buffer take(std::size_t n_bytes);
  std::size_t n_kept_bytes() const;
  void clear() { pieces_.clear(); }  // nothing is taken

 private:
  struct Piece {
    Scratch* owner;
    Buffer memory;
    bool is_taken = false;
  };
  static void give_back(void* memory, void* piece);

  Allocate allocate_;
  std::vector<std::unique_ptr<Piece>> pieces_;
};

}  // namespace starattn
