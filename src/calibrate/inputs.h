// SPDX-License-Identifier: Apache-2.0
// What the operations of a calibration work on: random matrices and rows, and the sizes at which
// they are timed. star/machine.h takes what lies between by interpolation.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "star/answer.h"

namespace starattn {

inline constexpr std::int64_t kWidth = 4096;    // of rows, where one size is enough
inline constexpr std::int64_t kWidest = 12288;  // of a matrix
inline constexpr std::int64_t kHeadDims[] = {64, 128};
inline constexpr std::int64_t kThinRows[] = {1, 8, 32, Answerer::kMaxRows};  // of a step

// Keys of a long context: on a CPU 4096.
inline std::int64_t n_many_keys(std::int64_t chunk_rows) {
  return 8 * chunk_rows;
}
// kWidth in heads of that many numbers, four to a head of keys.
inline AttentionShape shape_of_width(std::int64_t head_dim) {
  return {kWidth / head_dim, kWidth / head_dim / 4, head_dim};
}

// Random numbers from -1 to 1, the same in every call, as a backend's activations are: f32 or bf16.
std::vector<std::byte> random_numbers(std::int64_t n, Dtype dtype);

class CalibrationInputs {
 public:
  explicit CalibrationInputs(Backend& backend);  // which outlives this

  // A matrix [n_out, n_in] of random numbers; `turn` takes others, so that none stays in a cache.
  WeightView weight(std::int64_t n_out, std::int64_t n_in, std::int64_t turn = 0) const;
  // The same 1024 rows again and again.
  RowBuffer rows(std::int64_t n_rows, std::int64_t width) const;
  Buffer floats(std::int64_t n) const;  // fp32, each 0.5
  // [n_keys] keys, and behind them as many values, at the start of such memory.
  KvSegment segment(const std::byte* keys, std::int64_t n_keys, const AttentionShape& shape,
                    bool is_causal = false) const;
  std::size_t kv_bytes(std::int64_t n_keys, const AttentionShape& shape) const;

  Backend& backend() const { return backend_; }
  std::int64_t chunk() const { return backend_.chunk_rows(); }
  double element() const { return static_cast<double>(size_of(backend_.activation_dtype())); }

 private:
  Backend& backend_;
  std::vector<std::uint16_t> numbers_;  // bf16 [kWidest, kWidest]: every matrix is a part of it
};

}  // namespace starattn
