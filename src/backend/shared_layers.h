// SPDX-License-Identifier: Apache-2.0
// A model's matrices of which a device keeps a part: some rows of every matrix, where devices of a
// node share them out, or none, where they are in host memory. A whole layer is fetched from there,
// into one of two buffers, while the device works on the layer before.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/peer_links.h"
#include "backend/tensors.h"

namespace starattn {

struct SharedMatrix {
  WeightView whole;         // as the model's folder has it; FP8 stays so where operations take it
  std::vector<Share> rows;  // [rank], ascending; leaves nothing out. Ranks may have the same rows
};

struct SharedModel {
  std::vector<std::vector<SharedMatrix>> layers;
  // Nobody needs these whole: an embedding's row comes from the device that has it. One matrix
  // where they are tied.
  SharedMatrix lm_head, embedding;
};

class FetchedLayers {
 public:
  virtual ~FetchedLayers() = default;

  // Operations from here on find the matrices of this layer whole, and of no other.
  virtual void use(std::int64_t layer) = 0;
};

class SharedLayers : public FetchedLayers {
 public:
  // Where this device's rows are.
  virtual PeerAddress address() const = 0;
  // all[rank]. Throws Error(unfit). Every rank has loaded its weights before any goes on to use().
  virtual void connect(std::span<const PeerAddress> all) = 0;
};

}  // namespace starattn
