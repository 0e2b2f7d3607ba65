// SPDX-License-Identifier: Apache-2.0
// K and V of finished blocks on the device, layer by layer, again and again. What lives in host
// memory passes through two buffers: the next layer is on its way while one is in use.
#pragma once

#include <span>
#include <vector>

#include "star/kv.h"

namespace starattn {

class KvPrefetch {
 public:
  // The first n_tokens of a block.
  struct Source {
    const KvCache* cache = nullptr;
    std::int64_t n_tokens = 0;
  };
  enum class What { keys_and_values, keys };  // keys: the segments have no values
  // Layers 0 to n_layers - 1 are asked for in turn, then layer 0 again. Caches outlive the
  // prefetch.
  KvPrefetch(Backend& backend, std::vector<Source> sources, std::int64_t n_layers,
             What what = What::keys_and_values);
  ~KvPrefetch();
  KvPrefetch(const KvPrefetch&) = delete;
  KvPrefetch& operator=(const KvPrefetch&) = delete;

  // FP8 keys and values on the device are at rest from here on: what reads them faster is laid out
  // beside them (Backend::lay_out_exponents), once.
  void lay_out_exponents(const AttentionShape& shape);

  // One segment a source, in order. Good for operations called before the next call.
  std::span<const KvSegment> layer(std::int64_t layer);
  bool has_host() const { return has_host_; }  // some of them live in host memory

 private:
  void fetch(std::int64_t layer, int buffer);

  Backend* backend_;
  std::vector<Source> sources_;
  std::int64_t n_layers_;
  What what_;
  bool has_host_ = false;
  Buffer buffers_[2];                    // the sources on the host: k, v, k, v, ...
  std::int64_t layer_of_[2] = {-1, -1};  // what is there, or on its way
  std::vector<Buffer> exponents_;        // of each source, once laid out: layer after layer
  std::vector<KvSegment> segments_;
};

// All own blocks of a document, in order.
std::vector<KvPrefetch::Source> sources_of(const DocumentKv& kv);

}  // namespace starattn
