// SPDX-License-Identifier: Apache-2.0
// Keys and values that phase 1 leaves behind: each context token's, in each layer, exactly once.
#pragma once

#include <cstdint>
#include <map>

#include "backend/backend.h"
#include "base/error.h"
#include "star/plan.h"

namespace starattn {

// Where finished blocks live. In host memory they are pinned, and come to the device and back layer
// by layer (star/kv_double_buffer.h, star/kv_prefetch.h); the bits are the same.
enum class KvMemory { device, host };

// K and V of consecutive tokens in several layers: [n_layers][k, v][n_tokens], each row as the
// layout says.
class KvCache {
 public:
  KvCache() = default;
  KvCache(Backend& backend, std::int64_t n_layers, std::int64_t n_tokens, const KvLayout& layout,
          KvMemory where = KvMemory::device)
      : where_(where),
        n_layers_(n_layers),
        n_tokens_(n_tokens),
        layout_(layout),
        memory_(where == KvMemory::host ? backend.allocate_pinned(n_bytes())
                                        : backend.allocate(n_bytes())) {}

  std::byte* k(std::int64_t layer) const { return part(layer, 0); }
  std::byte* v(std::int64_t layer) const { return part(layer, 1); }
  // n rows of one layer from row `first` on.
  RawRows k_rows(std::int64_t layer, std::int64_t first, std::int64_t n) const {
    return {k(layer) + static_cast<std::size_t>(first) * row_bytes(), n, row_bytes()};
  }
  RawRows v_rows(std::int64_t layer, std::int64_t first, std::int64_t n) const {
    return {v(layer) + static_cast<std::size_t>(first) * row_bytes(), n, row_bytes()};
  }
  std::size_t row_bytes() const { return layout_.row_bytes(); }
  std::size_t part_bytes() const { return static_cast<std::size_t>(n_tokens_) * row_bytes(); }
  std::size_t n_bytes() const { return static_cast<std::size_t>(n_layers_) * 2 * part_bytes(); }
  bool is_on_host() const { return where_ == KvMemory::host; }
  const KvLayout& layout() const { return layout_; }
  std::int64_t width() const { return layout_.width(); }
  std::int64_t n_tokens() const { return n_tokens_; }
  std::int64_t n_layers() const { return n_layers_; }

  // The first n tokens of one layer.
  KvSegment segment(std::int64_t layer, std::int64_t n_tokens, bool causal = false) const {
    return {k(layer), v(layer), n_tokens, causal, layout_.is_f8()};
  }

 private:
  std::byte* part(std::int64_t layer, int which) const {
    STARATTN_CHECK(layer >= 0 && layer < n_layers_);
    return memory_.data() + (static_cast<std::size_t>(layer) * 2 + which) * part_bytes();
  }

  KvMemory where_ = KvMemory::device;
  std::int64_t n_layers_ = 0;
  std::int64_t n_tokens_ = 0;
  KvLayout layout_;
  Buffer memory_;
};

// This rank's share of an encoded document.
struct DocumentKv {
  BlockPlan plan;
  std::map<BlockId, KvCache> blocks;  // own blocks only, ascending
};

}  // namespace starattn
