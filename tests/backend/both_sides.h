// SPDX-License-Identifier: Apache-2.0
// Each operation of the CUDA backend against the CPU's, on fresh random bf16 numbers. Results are
// rounded to bf16 once (2^-9), sums of products run over bf16 operands exactly as on the CPU, so
// the bounds are a few such roundings.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <list>
#include <memory>
#include <random>

#include "backend/backend.h"
#include "model/decoder.h"

namespace starattn {

using Floats = std::vector<float>;

inline float bf16_of(float x) {
  return bf16_to_f32(f32_to_bf16(x));
}

class Numbers {
 public:
  Floats bell(std::int64_t n, float deviation = 1) {
    std::normal_distribution<float> normal(0, deviation);
    Floats values(static_cast<std::size_t>(n));
    for (float& value : values) value = bf16_of(normal(generator_));
    return values;
  }

 private:
  std::mt19937 generator_{std::random_device{}()};
};

inline std::vector<std::uint16_t> as_bf16(const Floats& values) {
  std::vector<std::uint16_t> bits;
  for (const float value : values) bits.push_back(f32_to_bf16(value));
  return bits;
}

// Largest difference, relative to the largest value.
inline double difference(const Floats& a, const Floats& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0, scale = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(std::isfinite(a[i])) << i;
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    scale = std::max(scale, std::abs(static_cast<double>(b[i])));
  }
  return worst / scale;
}

constexpr double kOneRounding =
    4e-3;  // to bf16, of the largest value: 2^-8 just above a power of 2
constexpr double kTwoRoundings = 8e-3;  // cuBLASLt rounds a product before it adds it to y
constexpr double kAttention = 8e-3;     // the weights of the keys are rounded to bf16, too

// Memory of one backend, filled from floats.
class Side {
 public:
  explicit Side(std::unique_ptr<Backend> made) : backend(std::move(made)) {}

  Rows rows(const Floats& values, std::int64_t width) {
    const std::vector<std::uint16_t> narrow = as_bf16(values);
    const bool wide = backend->activation_dtype() == Dtype::f32;
    const auto bytes = wide ? std::as_bytes(std::span(values)) : std::as_bytes(std::span(narrow));
    return {keep(bytes), static_cast<std::int64_t>(values.size()) / width, width};
  }
  Rows empty(std::int64_t n_rows, std::int64_t width) {
    return rows(Floats(static_cast<std::size_t>(n_rows * width), 77), width);
  }
  std::byte* keep(std::span<const std::byte> bytes) {
    Buffer& buffer = buffers_.emplace_back(backend->allocate(bytes.size()));
    backend->upload(bytes, buffer.data());
    return buffer.data();
  }
  Partial partial(std::int64_t n_rows, const AttentionShape& shape) {
    partials_.emplace_back(*backend, n_rows, shape);
    backend->clear(partials_.back().partial(), shape);
    return partials_.back().partial();
  }
  void next_tokens(Rows x, const WeightView& w, std::span<const Draw> draws,
                   std::span<Token> tokens) {
    const Buffer there = backend->allocate(tokens.size_bytes());
    backend->next_tokens(x, w, draws, reinterpret_cast<Token*>(there.data()));
    backend->download(there.data(), std::as_writable_bytes(tokens));
  }
  Floats get(Rows x) {
    Floats values(static_cast<std::size_t>(x.n_rows * x.width));
    backend->download_rows(x, values);
    return values;
  }
  Floats get(const float* data, std::int64_t n) {
    Floats values(static_cast<std::size_t>(n));
    backend->download(reinterpret_cast<const std::byte*>(data),
                      std::as_writable_bytes(std::span(values)));
    return values;
  }

  std::unique_ptr<Backend> backend;

 private:
  std::vector<Buffer> buffers_;
  std::vector<PartialBuffer> partials_;
};

class CudaBackend : public ::testing::Test {
 protected:
  void SetUp() override {
    if (n_cuda_devices() == 0) GTEST_SKIP() << "no CUDA device here";
    cpu_ = std::make_unique<Side>(make_cpu_backend(4));
    gpu_ = std::make_unique<Side>(make_cuda_backend(0));
  }

  // Runs `work` on both sides and compares what it returns.
  template <typename Work>
  void expect_same(double bound, const Work& work) {
    const Floats expected = work(*cpu_);
    EXPECT_LE(difference(work(*gpu_), expected), bound);
  }

  WeightView weight(const Floats& values, std::int64_t n_cols) {
    const auto& bits = weights_.emplace_back(as_bf16(values));
    return {reinterpret_cast<const std::byte*>(bits.data()), Dtype::bf16,
            static_cast<std::int64_t>(values.size()) / n_cols, n_cols};
  }

  Numbers numbers_;
  std::unique_ptr<Side> cpu_, gpu_;
  std::list<std::vector<std::uint16_t>> weights_;
};

}  // namespace starattn
