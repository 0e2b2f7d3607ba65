// SPDX-License-Identifier: Apache-2.0
// The halo of a block: the keys and values of the tokens just before it that its rows see through a
// layer's window. Whoever owns the blocks before hands them over, in each layer with a window, as
// soon as they are made. So windows are exact across the borders of blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "exchange/channel.h"
#include "mpi/communicator.h"
#include "star/kv.h"
#include "star/plan.h"

namespace starattn {

class HaloExchange {
 public:
  // channel: null for a group of one. It carries nothing else while a layer with a window is in
  // work. widest: of the windows. poll: called while this rank waits, for others may need something
  // else of it before they go on. Arguments must outlive the exchange.
  HaloExchange(const Communicator& group, Channel* channel, Backend& backend, const BlockPlan& plan,
               const AttentionShape& shape, std::int64_t widest, std::function<void()> poll);

  // These blocks go through the layers that follow, at most one a rank, ascending; the same on
  // every rank. All blocks before them are finished.
  void start_wave(std::span<const BlockId> wave);
  // A layer with a window, in which this rank's block of the wave, if it has one, has its keys and
  // values: hands over what the wave's other blocks see of this rank's, and begins to take what its
  // own one sees of others'. Layers in the same order on all ranks. Never waits.
  void start_layer(const DocumentKv& kv, std::int64_t layer, std::int64_t window);
  // That of this rank's block in the layer. Good for operations called before the next layer.
  KvSegment halo();
  void poll() {
    if (channel_) channel_->poll();
    poll_();
  }
  void finish_wave();  // what this rank handed over has been taken

 private:
  void send(const KvCache& cache, std::int64_t layer, Share rows, Rank to);
  void take(const KvCache& cache, std::int64_t layer, Share rows, std::int64_t at);
  RawRows rows_of(const Buffer& buffer, std::int64_t first, std::int64_t n) const {
    return {buffer.data() + static_cast<std::size_t>(first) * row_bytes_, n, row_bytes_};
  }

  const Communicator* group_;
  Channel* channel_;
  Backend* backend_;
  const BlockPlan* plan_;
  std::function<void()> poll_;
  bool is_f8_;
  std::size_t row_bytes_;  // of K, or of V
  std::vector<BlockId> wave_;
  BlockId own_ = -1;  // this rank's of the wave
  std::int64_t n_halo_ = 0;
  Buffer k_, v_;    // [widest - 1] rows
  Buffer numbers_;  // int32: 0, 1, 2, ...
  std::vector<Channel::Arrival> arrivals_;
};

}  // namespace starattn
