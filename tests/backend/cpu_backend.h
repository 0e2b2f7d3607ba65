// SPDX-License-Identifier: Apache-2.0
// The CPU backend on every instruction set that this machine has, for tests of its operations
// against plain double precision.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"

namespace starattn {

using Floats = std::vector<float>;

inline Floats random_floats(std::size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Floats values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

inline Rows rows_of(Floats& values, std::int64_t width) {
  return {reinterpret_cast<std::byte*>(values.data()),
          static_cast<std::int64_t>(values.size()) / width, width};
}

inline double relative_error(const Floats& a, const std::vector<double>& b) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

// The backend with one instruction set; a machine without it skips the test.
class CpuBackendTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ::setenv("STARATTN_CPU", GetParam(), 1);
    try {
      backend_ = make_cpu_backend(2);
    } catch (const Error& error) {
      ASSERT_EQ(error.exit(), Exit::unfit);
      GTEST_SKIP() << error.what();
    }
  }
  void TearDown() override { ::unsetenv("STARATTN_CPU"); }

  std::unique_ptr<Backend> backend_;
};

// Its tests run once an instruction set.
#define STARATTN_ON_EVERY_INSTRUCTION_SET(suite)                                            \
  INSTANTIATE_TEST_SUITE_P(Kernels, suite, ::testing::Values("portable", "avx2", "avx512"), \
                           [](const auto& test) { return std::string(test.param); })

}  // namespace starattn
