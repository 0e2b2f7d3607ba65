// SPDX-License-Identifier: Apache-2.0
#include "star/kv_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace starattn {
namespace {

constexpr std::int64_t kNowhere = INT64_MAX;

// One token's K or V is NaN throughout.
bool is_nan_throughout(Backend& backend, const KvCache& cache, RawRows row) {
  std::vector<std::byte> bytes(cache.row_bytes());
  if (cache.is_on_host()) {
    std::memcpy(bytes.data(), row.data, bytes.size());
  } else {
    backend.download(row.data, bytes);
  }
  if (cache.layout().is_f8())
    return std::all_of(bytes.begin(), bytes.begin() + cache.width(),
                       [](std::byte f8) { return (f8 & std::byte{0x7f}) == std::byte{0x7f}; });
  const std::size_t width = size_of(cache.layout().dtype);
  for (std::size_t at = 0; at < bytes.size(); at += width) {
    std::uint32_t bits = 0;  // of the value in fp32: bf16 is its upper half
    std::memcpy(reinterpret_cast<std::byte*>(&bits) + (sizeof(bits) - width), bytes.data() + at,
                width);
    if (!std::isnan(std::bit_cast<float>(bits))) return false;
  }
  return true;
}

}  // namespace

std::string describe(const Overflow& overflow, std::int64_t n_layers) {
  if (overflow.layer < 0) return "the embedding is not finite or too large for the first norm";
  return fmt::format("values overflow in layer {} of {}, counted from 0{}", overflow.layer,
                     n_layers, overflow.is_result ? "" : ", in its keys or values");
}

KvCheck::KvCheck(Backend& backend, std::int64_t n_layers)
    : backend_(&backend),
      nowhere_(static_cast<std::size_t>(2 * n_layers), kNowhere),
      places_(backend.allocate(nowhere_.size() * sizeof(std::int64_t))) {
  backend.upload_later(std::as_bytes(std::span(nowhere_)), places_.data());
}

void KvCheck::look(std::int64_t layer, std::int64_t first, Rows k, Rows v) {
  width_ = k.width;
  auto* places = reinterpret_cast<std::int64_t*>(places_.data()) + 2 * layer;
  backend_->find_not_finite(k, first * width_, places);
  backend_->find_not_finite(v, first * width_, places + 1);
}

std::optional<Overflow> KvCheck::result(const KvCache& cache) const {
  std::vector<std::int64_t> places(nowhere_.size());
  backend_->download(places_.data(), std::as_writable_bytes(std::span(places)));
  const auto found = std::ranges::find_if(places, [](std::int64_t at) { return at != kNowhere; });
  if (found == places.end()) return std::nullopt;
  const std::int64_t layer = (found - places.begin()) / 2;
  const std::int64_t token = std::min(places[static_cast<std::size_t>(2 * layer)],
                                      places[static_cast<std::size_t>(2 * layer) + 1]) /
                             width_;
  const bool came_in = is_nan_throughout(*backend_, cache, cache.k_rows(layer, token, 1)) &&
                       is_nan_throughout(*backend_, cache, cache.v_rows(layer, token, 1));
  return Overflow{came_in ? layer - 1 : layer, came_in, token};
}

std::optional<Overflow> find_overflow(Backend& backend, const KvCache& cache,
                                      std::int64_t n_tokens) {
  KvCheck check(backend, cache.n_layers());
  for (std::int64_t layer = 0; layer < cache.n_layers(); ++layer)
    check.look(layer, 0, {cache.k(layer), n_tokens, cache.width()},
               {cache.v(layer), n_tokens, cache.width()});
  return check.result(cache);
}

}  // namespace starattn
