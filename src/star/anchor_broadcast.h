// SPDX-License-Identifier: Apache-2.0
// The anchor's K and V on their way from block 0's owner to every rank with blocks, layer by layer.
// Receives are posted before the first layer is computed; whoever computes calls poll() now and
// then, because MPI moves data only inside its own calls. Memory of a device is out of MPI's reach:
// there a few layers at a time pass through host memory.
#pragma once

#include <cstdint>
#include <vector>

#include "mpi/communicator.h"
#include "star/kv.h"

namespace starattn {

class AnchorBroadcast {
 public:
  // ranks: the ranks that take part, root: block 0's owner among them. The last layer is not sent:
  // no context row attends in it, since phase 1 ends with its keys and values.
  AnchorBroadcast(const Communicator& ranks, Rank root, Backend& backend, std::int64_t n_layers,
                  std::int64_t anchor_size, std::int64_t kv_width);

  // Root: layer `layer` of block 0 is in `block_0`. Layers in ascending order, each once.
  void send(std::int64_t layer, const KvCache& block_0);
  // The anchor in one layer; on other ranks than the root this waits until it is there.
  KvSegment wait(std::int64_t layer);
  void poll();
  void finish();  // everything has been sent or received

 private:
  bool is_root() const { return ranks_->rank() == root_; }
  void post(std::int64_t layer, std::byte* k, std::byte* v);
  std::byte* staged(std::int64_t layer, int part) const;  // 0: k, 1: v
  void arrive(std::int64_t layer);

  static constexpr std::int64_t kStagedLayers = 3;

  const Communicator* ranks_;
  Rank root_;
  Backend* backend_;
  std::int64_t n_layers_;
  std::int64_t anchor_size_;
  std::size_t part_bytes_;
  KvCache received_;                  // not on the root
  const KvCache* block_0_ = nullptr;  // on the root
  Buffer staging_;                    // where device memory is not host memory
  std::int64_t n_arrived_ = 0;        // layers in received_
  std::vector<Requests> layers_;
};

}  // namespace starattn
