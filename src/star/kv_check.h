// SPDX-License-Identifier: Apache-2.0
// Values that overflow are found in K and V: each layer's come from a norm, which a row that is not
// finite leaves as NaN throughout, so no overflow of a layer gets past the next one's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "star/kv.h"

namespace starattn {

// Where values are not finite for the first time.
struct Overflow {
  // The layer whose own keys or values they are, or whose result: is_result. -1 and is_result: the
  // embedding, too large to be normalised.
  std::int64_t layer = 0;
  bool is_result = false;
  std::int64_t token = 0;  // among those that were looked at
};

// "layer 3 of 32 (counted from 0)"
std::string describe(const Overflow& overflow, std::int64_t n_layers);

class KvCheck {
 public:
  KvCheck(Backend& backend, std::int64_t n_layers);

  // K and V of tokens from `first` on in one layer, as the operations so far leave them, before
  // they are narrowed.
  void look(std::int64_t layer, std::int64_t first, Rows k, Rows v);
  // What was found; the cache holds what was looked at, and is finished. Waits for the device.
  std::optional<Overflow> result(const KvCache& cache) const;

 private:
  Backend* backend_;
  std::vector<std::int64_t> nowhere_;
  std::int64_t width_ = 1;
  Buffer places_;  // [n_layers][k, v], std::int64_t on the device
};

// In K and V of the first n_tokens, which are on the device and not FP8. Waits for it.
std::optional<Overflow> find_overflow(Backend& backend, const KvCache& cache,
                                      std::int64_t n_tokens);

}  // namespace starattn
