// SPDX-License-Identifier: Apache-2.0
// What an operation multiplies, reads and writes: the figures that a trace has of it.
#pragma once

#include <cstddef>
#include <span>

#include "backend/backend.h"
#include "trace/recorder.h"

namespace starattn {

inline double number(std::int64_t n) {
  return static_cast<double>(n);
}

class WorkCounter {
 public:
  explicit WorkCounter(const Backend& backend);

  double element_bytes() const { return element_bytes_; }  // of an activation
  static trace::Work moved(std::span<const std::byte> bytes);
  // Each number of the rows read or written n_times.
  trace::Work rows(Rows x, double n_times) const;
  trace::Work product(Rows x, const WeightView& w) const;
  trace::Work products(Rows x, std::span<const Projection> to) const;  // of one x
  trace::Work attention(Rows q, std::span<const KvSegment> segments,
                        const AttentionShape& shape) const;
  // n_parts: partials of the context that are merged in.
  trace::Work own_tokens(Rows q, std::span<const OwnTokens> own, const AttentionShape& shape,
                         std::int64_t n_parts) const;
  trace::Work scores(Rows q, std::int64_t n_keys, const AttentionShape& shape) const;
  static trace::Work partials(Partial partial, const AttentionShape& shape, double n_times);
  static double partial_bytes(std::int64_t n_rows, const AttentionShape& shape);
  double kv_bytes(const KvSegment& segment, const AttentionShape& shape) const;

 private:
  const Backend* backend_;
  double element_bytes_;
};

}  // namespace starattn
