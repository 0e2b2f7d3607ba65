// SPDX-License-Identifier: Apache-2.0
#include "star/kv_prefetch.h"

namespace starattn {
namespace {

std::size_t part_bytes(const KvPrefetch::Source& source) {
  return static_cast<std::size_t>(source.n_tokens) * source.cache->row_bytes();
}

}  // namespace

KvPrefetch::KvPrefetch(Backend& backend, std::vector<Source> sources, std::int64_t n_layers,
                       What what)
    : backend_(&backend), sources_(std::move(sources)), n_layers_(n_layers), what_(what) {
  const std::size_t halves = what == What::keys ? 1 : 2;
  std::size_t n_bytes = 0;
  for (const Source& source : sources_)
    n_bytes += source.cache->is_on_host() ? halves * part_bytes(source) : 0;
  has_host_ = n_bytes > 0;
  if (!has_host_) return;
  for (Buffer& buffer : buffers_) buffer = backend.allocate(n_bytes);
}

KvPrefetch::~KvPrefetch() {  // memory is freed in the order of the operations
  if (has_host_) backend_->order_after_copies(CopyDirection::to_device);
}

std::span<const KvSegment> KvPrefetch::layer(std::int64_t layer) {
  const int buffer = layer_of_[1] == layer ? 1 : 0;
  if (has_host_) {
    if (layer_of_[buffer] != layer) fetch(layer, buffer);
    backend_->order_after_copies(CopyDirection::to_device);
    const std::int64_t next = (layer + 1) % n_layers_;
    if (next != layer && layer_of_[1 - buffer] != next) fetch(next, 1 - buffer);
  }
  segments_.clear();
  const std::byte* at = buffers_[buffer].data();
  for (const Source& source : sources_) {
    if (source.cache->is_on_host()) {
      const std::byte* k = at;
      at += part_bytes(source);
      const std::byte* v = what_ == What::keys ? nullptr : at;
      if (v) at += part_bytes(source);
      segments_.push_back({k, v, source.n_tokens, false, source.cache->layout().is_f8()});
    } else {
      segments_.push_back(source.cache->segment(layer, source.n_tokens));
    }
  }
  return segments_;
}

void KvPrefetch::fetch(std::int64_t layer, int buffer) {
  layer_of_[buffer] = layer;
  std::byte* to = buffers_[buffer].data();
  for (const Source& source : sources_) {
    if (!source.cache->is_on_host()) continue;
    const auto copy = [&](const std::byte* half) {
      backend_->copy_after_operations(CopyDirection::to_device, {half, part_bytes(source)}, to);
      to += part_bytes(source);
    };
    copy(source.cache->k(layer));
    if (what_ == What::keys_and_values) copy(source.cache->v(layer));
  }
}

std::vector<KvPrefetch::Source> sources_of(const DocumentKv& kv) {
  std::vector<KvPrefetch::Source> sources;
  for (const auto& [i, cache] : kv.blocks) sources.push_back({&cache, cache.n_tokens()});
  return sources;
}

}  // namespace starattn
