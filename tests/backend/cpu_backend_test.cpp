// SPDX-License-Identifier: Apache-2.0
// Each operation of the CPU backend but attention and recall against plain double precision; and
// the promise that a row's bits do not depend on its neighbours or on threads.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <cstring>
#include <random>

#include "../temporary_folder.h"
#include "cpu_backend.h"
#include "model/config.h"

namespace starattn {
namespace {

using CpuBackend = CpuBackendTest;

TEST_P(CpuBackend, ARowBeyondTheRangeOfItsNormBecomesNaN) {
  const std::int64_t width = 48;
  Floats x = random_floats(3 * width, 1);
  x[width + 5] = 1e20F;
  Floats ones(width, 1), y(x.size());
  const WeightView weight{reinterpret_cast<const std::byte*>(ones.data()), Dtype::f32, 1, width};
  backend_->rms_norm(rows_of(x, width), weight, 1e-5, rows_of(y, width));
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / width == 1) << i;
}

TEST_P(CpuBackend, FindsTheFirstValueThatIsNotFinite) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    const std::int64_t n_rows = 300, n_cols = 1001;
    const std::size_t width = size_of(dtype);
    std::vector<std::byte> bytes(static_cast<std::size_t>(n_rows * n_cols) * width + 1);
    const auto put = [&](std::int64_t at, std::uint32_t f32, std::uint16_t bf16,
                         std::uint16_t f16) {
      std::byte* to = bytes.data() + 1 + static_cast<std::size_t>(at) * width;
      const std::uint16_t narrow = dtype == Dtype::bf16 ? bf16 : f16;
      std::memcpy(to, width == 4 ? static_cast<const void*>(&f32) : &narrow, width);
    };
    for (std::int64_t at = 0; at < n_rows * n_cols; ++at)
      put(at, 0xff7fffff, 0xff7f, 0xfbff);                        // the lowest finite number
    const WeightView w{bytes.data() + 1, dtype, n_rows, n_cols};  // unaligned
    EXPECT_EQ(backend_->first_not_finite(w, 0, n_rows), -1);
    put(299 * n_cols + 1000, 0x7f800001, 0x7f81, 0x7c01);  // NaN, as the last value
    EXPECT_EQ(backend_->first_not_finite(w, 0, n_rows), 299 * n_cols + 1000);
    put(7 * n_cols + 3, 0xff800000, 0xff80, 0xfc00);  // -infinity
    EXPECT_EQ(backend_->first_not_finite(w, 0, n_rows), 7 * n_cols + 3);
    EXPECT_EQ(backend_->first_not_finite(w, 7, 1), 7 * n_cols + 3);
    EXPECT_EQ(backend_->first_not_finite(w, 8, 291), -1);
  }
  Floats x(5 * 1000, 1);
  std::int64_t place = INT64_MAX;
  backend_->find_not_finite(rows_of(x, 1000), 0, &place);
  EXPECT_EQ(place, INT64_MAX);
  x[4321] = INFINITY;
  backend_->find_not_finite(rows_of(x, 1000), 0, &place);
  EXPECT_EQ(place, 4321);
  x[4321] = 1;
  x[4322] = NAN;
  backend_->find_not_finite(rows_of(x, 1000), 0, &place);
  EXPECT_EQ(place, 4321);  // the smaller stays
}

TEST_P(CpuBackend, ProductsEqualDoubleInEveryDtype) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    const std::int64_t n_in = 83;
    const std::int64_t n_out = 301;
    std::vector<std::byte> bytes(static_cast<std::size_t>(n_in * n_out) * size_of(dtype) + 1);
    Floats weights = random_floats(static_cast<std::size_t>(n_in * n_out), 4);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (dtype == Dtype::f32) {
        std::memcpy(bytes.data() + 1 + i * 4, &weights[i], 4);
      } else {
        const auto bits = dtype == Dtype::bf16 ? f32_to_bf16(weights[i])
                                               : static_cast<std::uint16_t>((i * 7919) % 0x7800);
        std::memcpy(bytes.data() + 1 + i * 2, &bits, 2);
        weights[i] = dtype == Dtype::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
      }
    }
    const WeightView w{bytes.data() + 1, dtype, n_out, n_in};  // unaligned
    Floats bias = random_floats(static_cast<std::size_t>(n_out), 5);
    const WeightView b{reinterpret_cast<const std::byte*>(bias.data()), Dtype::f32, 1, n_out};
    for (const std::int64_t n_rows : {1, 3, 4, 9}) {
      Floats x = random_floats(static_cast<std::size_t>(n_rows * n_in), 6);
      std::vector<double> expected;
      for (std::int64_t i = 0; i < n_rows; ++i) {
        for (std::int64_t j = 0; j < n_out; ++j) {
          double sum = bias[static_cast<std::size_t>(j)];
          for (std::int64_t c = 0; c < n_in; ++c) {
            sum += double{x[static_cast<std::size_t>(i * n_in + c)]} *
                   double{weights[static_cast<std::size_t>(j * n_in + c)]};
          }
          expected.push_back(sum);
        }
      }
      for (const Product product : {Product::chunk, Product::batch_invariant}) {
        Floats y(expected.size(), NAN);
        backend_->linear(rows_of(x, n_in), {w, b, rows_of(y, n_out)}, product);
        EXPECT_LT(relative_error(y, expected), 1e-6) << name_of(dtype);
      }
      Floats all(expected.size());
      backend_->linear(rows_of(x, n_in), {w, b, rows_of(all, n_out)}, Product::batch_invariant);
      Floats last(x.end() - n_in, x.end());
      Floats alone(static_cast<std::size_t>(n_out));
      backend_->linear(rows_of(last, n_in), {w, b, rows_of(alone, n_out)},
                       Product::batch_invariant);
      EXPECT_EQ(0, std::memcmp(alone.data(), all.data() + all.size() - alone.size(),
                               alone.size() * sizeof(float)));
    }
  }
}

TEST_P(CpuBackend, RefusesHeadDimsThatItsKernelsDoNotTake) {
  ModelConfig config;
  for (const std::int64_t head_dim : {16, 80, 128}) {
    config.head_dim = head_dim;
    EXPECT_NO_THROW(backend_->check_model(config.shape()));
  }
  for (const std::int64_t head_dim : {8, 24, 100}) {
    config.head_dim = head_dim;
    const std::string size = fmt::format("{}", head_dim);
    expect_refused([&] { backend_->check_model(config.shape()); }, Exit::unfit,
                   {"multiples of 16", size});
  }
}

TEST_P(CpuBackend, ThreadsTakeTheirMemoryWithThem) {
  const std::int64_t n_in = 4096;
  const std::int64_t n_out = 32 * 256;  // many panels, so that no thread goes without
  const std::vector<std::uint16_t> weights(static_cast<std::size_t>(n_in * n_out));
  const WeightView w{reinterpret_cast<const std::byte*>(weights.data()), Dtype::bf16, n_out, n_in};
  Floats x(static_cast<std::size_t>(n_in));
  Floats y(static_cast<std::size_t>(n_out));
  const auto memory_behind = [&](int n_threads) {
    make_cpu_backend(n_threads)->linear(rows_of(x, n_in), {w, WeightView{}, rows_of(y, n_out)},
                                        Product::chunk);
    const auto info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const std::size_t of_this_thread = memory_behind(1);
  EXPECT_LT(memory_behind(4), of_this_thread + 1'000'000);
}

TEST_P(CpuBackend, Fp8WeightsAreMultipliedByTheirScales) {
  constexpr std::int64_t kIn = 75, kOut = 70, kRows = 9;
  std::vector<std::uint8_t> bits(kIn * kOut);
  std::mt19937 generator(3);
  for (std::uint8_t& byte : bits) {
    byte = static_cast<std::uint8_t>(generator());
    if ((byte & 0x7f) == 0x7f) byte = 0;
  }
  Floats scales = random_floats(100, 4);
  for (float& scale : scales) scale = 0.01F + std::abs(scale);
  WeightView w{reinterpret_cast<const std::byte*>(bits.data()), Dtype::f8, kOut, kIn};
  EXPECT_EQ(backend_->first_not_finite(w, 0, kOut), -1);
  Floats x = random_floats(kRows * kIn, 5);
  for (const WeightScales& blocks : {WeightScales{scales.data(), 16, 32, 0},
                                     {scales.data(), 16, 32, 21},
                                     {scales.data(), 1, kIn, 0},
                                     {scales.data(), kOut, kIn, 0}}) {
    w.scales = blocks;
    std::vector<double> expected;
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (std::int64_t j = 0; j < kOut; ++j) {
        double sum = 0;
        for (std::int64_t k = 0; k < kIn; ++k) {
          const std::int64_t n_blocks = (kIn + blocks.block_cols - 1) / blocks.block_cols;
          const std::int64_t block =
              (j + blocks.first_row) / blocks.block_rows * n_blocks + k / blocks.block_cols;
          sum += double{x[static_cast<std::size_t>(row * kIn + k)]} *
                 double{f8_to_f32(bits[static_cast<std::size_t>(j * kIn + k)])} *
                 double{scales[static_cast<std::size_t>(block)]};
        }
        expected.push_back(sum);
      }
    }
    for (const Product product : {Product::chunk, Product::batch_invariant}) {
      Floats y(kRows * kOut, NAN);
      backend_->linear(rows_of(x, kIn), {w, WeightView{}, rows_of(y, kOut)}, product);
      EXPECT_LT(relative_error(y, expected), 1e-6);
    }
  }
  bits[5 * kIn + 3] = 0xff;  // NaN
  EXPECT_EQ(backend_->first_not_finite(w, 0, kOut), 5 * kIn + 3);
}

// Every number of FP8, zeros and the smallest ones, too, by both products and in any place.
TEST_P(CpuBackend, Fp8NumbersAreWidenedAsTheTypeSays) {
  std::vector<std::uint8_t> codes;
  for (int code = 0; code < 256; ++code)
    if ((code & 0x7f) != 0x7f) codes.push_back(static_cast<std::uint8_t>(code));
  const auto n = std::ssize(codes);
  const float scale = 0.3F;
  const WeightView w{
      reinterpret_cast<const std::byte*>(codes.data()), Dtype::f8, 1, n, {&scale, 1, n}};
  Floats units(codes.size() * codes.size(), 0), y(codes.size());
  for (std::size_t i = 0; i < codes.size(); ++i) units[i * codes.size() + i] = 1;
  for (const Product product : {Product::chunk, Product::batch_invariant}) {
    backend_->linear(rows_of(units, n), {w, WeightView{}, rows_of(y, 1)}, product);
    for (std::size_t i = 0; i < codes.size(); ++i)
      EXPECT_EQ(y[i], f8_to_f32(codes[i]) * scale) << i;
  }
}

TEST_P(CpuBackend, SwigluAndNormEqualDouble) {
  Floats gate = random_floats(1000, 7);
  for (std::size_t i = 0; i < 40; ++i) gate[i] = static_cast<float>(static_cast<int>(i) - 20) * 8;
  Floats up = random_floats(1000, 8);
  Floats y(1000);
  backend_->swiglu(rows_of(gate, 100), rows_of(up, 100), rows_of(y, 100));
  std::vector<double> expected;
  for (std::size_t i = 0; i < y.size(); ++i)
    expected.push_back(gate[i] / (1 + std::exp(-double{gate[i]})) * up[i]);
  EXPECT_LT(relative_error(y, expected), 1e-6);

  Floats weight = random_floats(100, 9);
  backend_->rms_norm(rows_of(gate, 100),
                     {reinterpret_cast<const std::byte*>(weight.data()), Dtype::f32, 1, 100}, 1e-5,
                     rows_of(y, 100));
  for (std::size_t row = 0; row < 10; ++row) {
    double squares = 0;
    for (std::size_t i = 0; i < 100; ++i)
      squares += double{gate[row * 100 + i]} * double{gate[row * 100 + i]};
    for (std::size_t i = 0; i < 100; ++i) {
      expected[row * 100 + i] = gate[row * 100 + i] / std::sqrt(squares / 100 + 1e-5) * weight[i];
    }
  }
  EXPECT_LT(relative_error(y, expected), 1e-6);
}

TEST_P(CpuBackend, ScalesRowsByTheSigmoidOfAProduct) {
  const Floats x = random_floats(3 * 40, 10);
  Floats by = random_floats(3 * 100, 11), gate = random_floats(100, 12), y = x;
  backend_->scale_by_gate(rows_of(y, 40), rows_of(by, 100),
                          {reinterpret_cast<const std::byte*>(gate.data()), Dtype::f32, 1, 100});
  std::vector<double> expected;
  for (std::size_t i = 0; i < y.size(); ++i) {
    double product = 0;
    for (std::size_t j = 0; j < 100; ++j) product += double{by[i / 40 * 100 + j]} * double{gate[j]};
    expected.push_back(x[i] / (1 + std::exp(-product)));
  }
  EXPECT_LT(relative_error(y, expected), 1e-5);
}

STARATTN_ON_EVERY_INSTRUCTION_SET(CpuBackend);

}  // namespace
}  // namespace starattn
