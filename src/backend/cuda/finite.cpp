// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/finite.h"

#include <algorithm>
#include <cmath>

#include "elementwise.h"

namespace starattn::cuda {
namespace {

// Of n bf16 values on the device, or -1.
std::int64_t first_of(Device& device, const std::uint16_t* values, std::int64_t n) {
  constexpr std::int64_t kNowhere = INT64_MAX;
  std::int64_t place = kNowhere;
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(&place, 1));
  const Buffer found = device.allocate(bytes.size());
  device.upload_later(bytes, found.data());
  kernels::find_not_finite(values, n, 0, reinterpret_cast<std::int64_t*>(found.data()),
                           device.stream());
  device.download(found.data(), bytes);
  return place == kNowhere ? -1 : place;
}

}  // namespace

std::int64_t first_not_finite(Device& device, DeviceWeights& weights, Products& products,
                              const WeightView& w, std::int64_t first_row, std::int64_t n_rows) {
  const std::int64_t first = first_row * w.n_cols;
  if (w.is_exact) {  // the same numbers there as here
    for (std::int64_t i = first; i < first + n_rows * w.n_cols; ++i)
      if (!std::isfinite(value_at(w, i))) return i;
    return -1;
  }
  if (weights.is_here(w)) {
    Buffer memory;
    const std::int64_t place =
        first_of(device, static_cast<const std::uint16_t*>(products.in_bf16(w, memory)) + first,
                 n_rows * w.n_cols);
    return place < 0 ? -1 : first + place;
  }
  // Rows that are kept elsewhere pass through.
  constexpr std::int64_t kMostValues = std::int64_t{32} << 20;
  const std::int64_t n_at_once = std::max<std::int64_t>(1, kMostValues / w.n_cols);
  const Buffer part = device.allocate(static_cast<std::size_t>(n_at_once * w.n_cols) * 2);
  for (std::int64_t done = 0; done < n_rows; done += n_at_once) {
    const WeightView rows = w.rows(first_row + done, std::min(n_at_once, n_rows - done));
    weights.upload_as_bf16(rows, part.data());
    const std::int64_t place = first_of(device, reinterpret_cast<const std::uint16_t*>(part.data()),
                                        rows.n_rows * w.n_cols);
    if (place >= 0) return first + done * w.n_cols + place;
  }
  return -1;
}

}  // namespace starattn::cuda
