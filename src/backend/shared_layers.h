// SPDX-License-Identifier: Apache-2.0
// A model's matrices shared out over devices of a node: each keeps some rows of every matrix. Phase
// 1 needs whole layers: a device fetches a layer's other rows from the devices that have them, into
// one of two buffers, while it works on the layer before.
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

class SharedLayers {
 public:
  virtual ~SharedLayers() = default;

  // Where this device's rows are.
  virtual PeerAddress address() const = 0;
  // all[rank]. Throws Error(unfit). Every rank has loaded its weights before any goes on to use().
  virtual void connect(std::span<const PeerAddress> all) = 0;
  // Operations from here on find the matrices of this layer whole, and of no other.
  virtual void use(std::int64_t layer) = 0;
};

}  // namespace starattn
