// SPDX-License-Identifier: Apache-2.0
#include "star/anchor_broadcast.h"

#include <algorithm>

#include "obs/range.h"

namespace starattn {

AnchorBroadcast::AnchorBroadcast(const Communicator& ranks, Rank root, Backend& backend,
                                 std::int64_t n_layers, std::int64_t anchor_size,
                                 std::int64_t kv_width)
    : ranks_(&ranks),
      root_(root),
      backend_(&backend),
      n_layers_(n_layers - 1),
      anchor_size_(anchor_size),
      part_bytes_(static_cast<std::size_t>(anchor_size * kv_width) * size_of(backend.kv_dtype())),
      layers_(static_cast<std::size_t>(n_layers - 1)) {
  if (!backend.is_host_memory()) {
    staging_ = backend.allocate_host(static_cast<std::size_t>(kStagedLayers) * 2 * part_bytes_);
  }
  if (is_root()) return;
  received_ = KvCache(backend, n_layers_, anchor_size, kv_width);
  if (backend.is_host_memory()) {
    for (std::int64_t layer = 0; layer < n_layers_; ++layer)
      post(layer, received_.k(layer), received_.v(layer));
  } else {
    for (std::int64_t layer = 0; layer < std::min(kStagedLayers, n_layers_); ++layer)
      post(layer, staged(layer, 0), staged(layer, 1));
  }
}

std::byte* AnchorBroadcast::staged(std::int64_t layer, int part) const {
  return staging_.data() + static_cast<std::size_t>(layer % kStagedLayers * 2 + part) * part_bytes_;
}

void AnchorBroadcast::post(std::int64_t layer, std::byte* k, std::byte* v) {
  Requests& requests = layers_[static_cast<std::size_t>(layer)];
  ranks_->ibcast({k, part_bytes_}, root_, requests);
  ranks_->ibcast({v, part_bytes_}, root_, requests);
  obs::count_bytes("anchor broadcast", 2 * part_bytes_);
}

void AnchorBroadcast::send(std::int64_t layer, const KvCache& block_0) {
  STARATTN_CHECK(is_root());
  block_0_ = &block_0;
  if (layer >= n_layers_) return;
  if (block_0.is_on_host()) {  // where it may still be on its way to
    backend_->await_copies(Way::to_host);
    backend_->synchronize();
  }
  if (backend_->is_host_memory() || block_0.is_on_host())
    return post(layer, block_0.k(layer), block_0.v(layer));
  if (layer >= kStagedLayers) {
    const obs::Range range("wait for anchor");
    layers_[static_cast<std::size_t>(layer - kStagedLayers)].wait();
  }
  backend_->download(block_0.k(layer), {staged(layer, 0), part_bytes_});
  backend_->download(block_0.v(layer), {staged(layer, 1), part_bytes_});
  post(layer, staged(layer, 0), staged(layer, 1));
}

KvSegment AnchorBroadcast::wait(std::int64_t layer) {
  if (is_root()) return block_0_->segment(layer, anchor_size_);
  while (n_arrived_ <= layer) arrive(n_arrived_);
  return received_.segment(layer, anchor_size_);
}

void AnchorBroadcast::arrive(std::int64_t layer) {
  {
    const obs::Range range("wait for anchor");
    layers_[static_cast<std::size_t>(layer)].wait();
  }
  n_arrived_ = layer + 1;
  if (backend_->is_host_memory()) return;
  backend_->upload({staged(layer, 0), part_bytes_}, received_.k(layer));
  backend_->upload({staged(layer, 1), part_bytes_}, received_.v(layer));
  const std::int64_t next = layer + kStagedLayers;
  if (next < n_layers_) post(next, staged(next, 0), staged(next, 1));
}

void AnchorBroadcast::poll() {
  for (Requests& layer : layers_) {
    if (!layer.empty() && !layer.test()) return;  // layers arrive in order
  }
}

void AnchorBroadcast::finish() {
  const obs::Range range("wait for anchor");
  if (!is_root()) {
    while (n_arrived_ < n_layers_) arrive(n_arrived_);
  }
  for (Requests& layer : layers_) layer.wait();
}

}  // namespace starattn
