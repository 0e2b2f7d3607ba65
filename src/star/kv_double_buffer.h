// SPDX-License-Identifier: Apache-2.0
// Where phase 1 works on the K and V of a block: in its cache, if that is on the device. Else in
// two buffers of a layer each on the device, one being copied to the host while the next is
// computed.
#pragma once

#include "base/error.h"
#include "star/kv.h"

namespace starattn {

class KvDoubleBuffer {
 public:
  // Layers in ascending order. The cache must outlive this.
  KvDoubleBuffer(Backend& backend, const KvCache& cache) : backend_(&backend), cache_(&cache) {
    if (cache.is_on_host()) buffers_ = KvCache(backend, kBuffers, cache.n_tokens(), cache.layout());
  }
  ~KvDoubleBuffer() {  // memory is freed in the order of the operations
    if (cache_->is_on_host()) backend_->order_after_copies(CopyDirection::to_host);
  }
  KvDoubleBuffer(const KvDoubleBuffer&) = delete;
  KvDoubleBuffer& operator=(const KvDoubleBuffer&) = delete;

  RawRows k_rows(std::int64_t layer, std::int64_t first, std::int64_t n) const {
    return place().k_rows(at(layer), first, n);
  }
  RawRows v_rows(std::int64_t layer, std::int64_t first, std::int64_t n) const {
    return place().v_rows(at(layer), first, n);
  }
  KvSegment segment(std::int64_t layer, std::int64_t n_tokens, bool causal = false) const {
    return place().segment(at(layer), n_tokens, causal);
  }

  // The layer is computed; its place is written again by the next layer but one.
  void store(std::int64_t layer) {
    STARATTN_CHECK(layer >= next_layer_);
    next_layer_ = layer + 1;
    if (!cache_->is_on_host()) return;
    // Of the layer before, whose place comes next.
    backend_->order_after_copies(CopyDirection::to_host);
    backend_->copy_after_operations(
        CopyDirection::to_host, {buffers_.k(at(layer)), buffers_.part_bytes()}, cache_->k(layer));
    backend_->copy_after_operations(
        CopyDirection::to_host, {buffers_.v(at(layer)), buffers_.part_bytes()}, cache_->v(layer));
  }
  // The layer was computed before: fetches it.
  void fetch(std::int64_t layer) {
    if (!cache_->is_on_host()) return;
    backend_->copy_after_operations(
        CopyDirection::to_device, {cache_->k(layer), cache_->part_bytes()}, buffers_.k(at(layer)));
    backend_->copy_after_operations(
        CopyDirection::to_device, {cache_->v(layer), cache_->part_bytes()}, buffers_.v(at(layer)));
    backend_->order_after_copies(CopyDirection::to_device);
  }
  // What was stored is in the cache, for the host to read.
  void finish() {
    if (!cache_->is_on_host()) return;
    backend_->order_after_copies(CopyDirection::to_host);
    backend_->synchronize();
  }

 private:
  static constexpr std::int64_t kBuffers = 2;
  const KvCache& place() const { return cache_->is_on_host() ? buffers_ : *cache_; }
  std::int64_t at(std::int64_t layer) const {
    return cache_->is_on_host() ? layer % kBuffers : layer;
  }

  Backend* backend_;
  const KvCache* cache_;
  KvCache buffers_;
  std::int64_t next_layer_ = 0;  // the least that may be stored
};

}  // namespace starattn
