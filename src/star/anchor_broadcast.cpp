// SPDX-License-Identifier: Apache-2.0
#include "star/anchor_broadcast.h"

#include "obs/range.h"

namespace starattn {

AnchorBroadcast::AnchorBroadcast(const Communicator& ranks, Rank root, Backend& backend,
                                 std::int64_t n_layers, std::int64_t anchor_size,
                                 std::int64_t kv_width)
    : ranks_(&ranks),
      root_(root),
      n_layers_(n_layers - 1),
      anchor_size_(anchor_size),
      part_bytes_(static_cast<std::size_t>(anchor_size * kv_width) * size_of(backend.kv_dtype())),
      layers_(static_cast<std::size_t>(n_layers - 1)) {
  if (is_root()) return;
  received_ = KvCache(backend, n_layers_, anchor_size, kv_width);
  for (std::int64_t layer = 0; layer < n_layers_; ++layer)
    post(layer, received_.k(layer), received_.v(layer));
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
  if (layer < n_layers_) post(layer, block_0.k(layer), block_0.v(layer));
}

KvSegment AnchorBroadcast::wait(std::int64_t layer) {
  if (is_root()) return block_0_->segment(layer, anchor_size_);
  const obs::Range range("wait for anchor");
  layers_[static_cast<std::size_t>(layer)].wait();
  return received_.segment(layer, anchor_size_);
}

void AnchorBroadcast::poll() {
  for (Requests& layer : layers_) {
    if (!layer.empty() && !layer.test()) return;  // layers arrive in order
  }
}

void AnchorBroadcast::finish() {
  const obs::Range range("wait for anchor");
  for (Requests& layer : layers_) layer.wait();
}

}  // namespace starattn
