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

void KvPrefetch::lay_out_exponents(const AttentionShape& shape) {
  if (!exponents_.empty()) return;
  for (const Source& source : sources_) {
    Buffer& exponents = exponents_.emplace_back();
    if (source.cache->is_on_host() || !source.cache->layout().is_f8()) continue;
    const std::size_t of_layer = backend_->exponent_bytes(source.n_tokens, shape);
    if (of_layer == 0) continue;
    exponents = backend_->allocate(static_cast<std::size_t>(n_layers_) * of_layer);
    for (std::int64_t i = 0; i < n_layers_; ++i) {
      backend_->lay_out_exponents(source.cache->segment(i, source.n_tokens), shape,
                                  exponents.data() + static_cast<std::size_t>(i) * of_layer);
    }
  }
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
  for (std::size_t i = 0; i < exponents_.size(); ++i) {
    const std::size_t of_layer = exponents_[i].n_bytes() / static_cast<std::size_t>(n_layers_);
    if (of_layer > 0)
      segments_[i].exponents = exponents_[i].data() + static_cast<std::size_t>(layer) * of_layer;
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
