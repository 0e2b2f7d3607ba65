// SPDX-License-Identifier: Apache-2.0
// Each operation of the CPU backend against plain double precision, on every instruction set that
// this machine has; and the promise that a row's bits do not depend on its neighbours or on
// threads.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

#include "../temporary_folder.h"
#include "backend/backend.h"
#include "base/error.h"
#include "model/config.h"

namespace starattn {
namespace {

using Floats = std::vector<float>;

Floats random_floats(std::size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Floats values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

Rows rows_of(Floats& values, std::int64_t width) {
  return {reinterpret_cast<std::byte*>(values.data()),
          static_cast<std::int64_t>(values.size()) / width, width};
}

struct OwnPartial {
  OwnPartial(std::int64_t n_rows, const AttentionShape& shape)
      : o(static_cast<std::size_t>(n_rows * shape.n_heads * shape.head_dim)),
        m(static_cast<std::size_t>(n_rows * shape.n_heads)),
        l(m.size()),
        n(n_rows) {}
  Partial view() { return {o.data(), m.data(), l.data(), n}; }
  Floats o, m, l;
  std::int64_t n;
};

KvSegment segment_of(const Floats& k, const Floats& v, std::int64_t n_tokens, bool causal) {
  return {reinterpret_cast<const std::byte*>(k.data()),
          reinterpret_cast<const std::byte*>(v.data()), n_tokens, causal};
}

class CpuBackend : public ::testing::TestWithParam<const char*> {
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

  Floats attend(Floats q, const std::vector<KvSegment>& segments, const AttentionShape& shape,
                Product product, Backend* backend = nullptr) {
    if (!backend) backend = backend_.get();
    const Rows rows = rows_of(q, shape.n_heads * shape.head_dim);
    OwnPartial partial(rows.n_rows, shape);
    backend->clear(partial.view(), shape);
    backend->attend(rows, segments, shape, product, partial.view());
    Floats out(q.size(), NAN);
    backend->finish(partial.view(), shape, rows_of(out, rows.width));
    return out;
  }

  std::unique_ptr<Backend> backend_;
};

// Softmax attention in double, row by row.
std::vector<double> reference(const Floats& q, const std::vector<std::pair<Floats, Floats>>& kv,
                              const std::vector<KvSegment>& segments, const AttentionShape& shape) {
  const std::int64_t d = shape.head_dim;
  const auto n_rows = static_cast<std::int64_t>(q.size()) / (shape.n_heads * d);
  std::vector<double> out(q.size(), 0.0);
  for (std::int64_t row = 0; row < n_rows; ++row) {
    for (std::int64_t head = 0; head < shape.n_heads; ++head) {
      const float* query = q.data() + (row * shape.n_heads + head) * d;
      const std::int64_t kv_head = head / (shape.n_heads / shape.n_kv_heads);
      double sum = 0;
      std::vector<double> o(static_cast<std::size_t>(d), 0.0);
      for (std::size_t s = 0; s < segments.size(); ++s) {
        const std::int64_t n = segments[s].n_tokens;
        const std::int64_t visible = segments[s].causal ? n - n_rows + 1 + row : n;
        for (std::int64_t t = std::max<std::int64_t>(0, segments[s].first_seen + row); t < visible;
             ++t) {
          const std::int64_t at = (t * shape.n_kv_heads + kv_head) * d;
          double score = 0;
          for (std::int64_t c = 0; c < d; ++c)
            score += double{query[c]} * double{kv[s].first[static_cast<std::size_t>(at + c)]};
          const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
          sum += weight;
          for (std::int64_t c = 0; c < d; ++c)
            o[static_cast<std::size_t>(c)] +=
                weight * double{kv[s].second[static_cast<std::size_t>(at + c)]};
        }
      }
      for (std::int64_t c = 0; c < d; ++c) {
        out[static_cast<std::size_t>((row * shape.n_heads + head) * d + c)] =
            o[static_cast<std::size_t>(c)] / sum;
      }
    }
  }
  return out;
}

double relative_error(const Floats& a, const std::vector<double>& b) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

TEST_P(CpuBackend, AttentionEqualsSoftmaxInDouble) {
  const AttentionShape shapes[] = {{4, 4, 16}, {6, 2, 64}, {8, 1, 32}, {4, 2, 128}, {3, 1, 80}};
  const std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>> lengths = {
      {1, {1}}, {1, {300}}, {5, {17, 5}}, {130, {129, 1, 200}}, {3, {2500, 700}}, {70, {0, 131}}};
  for (const AttentionShape& shape : shapes) {
    for (const auto& [n_rows, n_tokens] : lengths) {
      const Floats q =
          random_floats(static_cast<std::size_t>(n_rows * shape.n_heads * shape.head_dim), 1);
      std::vector<std::pair<Floats, Floats>> kv;
      std::vector<KvSegment> segments;
      for (std::size_t s = 0; s < n_tokens.size(); ++s) {
        const auto size = static_cast<std::size_t>(n_tokens[s] * shape.n_kv_heads * shape.head_dim);
        kv.emplace_back(random_floats(size, 10 + static_cast<unsigned>(s)),
                        random_floats(size, 20 + static_cast<unsigned>(s)));
      }
      for (std::size_t s = 0; s < n_tokens.size(); ++s) {
        segments.push_back(
            segment_of(kv[s].first, kv[s].second, n_tokens[s], s + 1 == n_tokens.size()));
      }
      const std::vector<double> expected = reference(q, kv, segments, shape);
      for (const Product product : {Product::chunk, Product::batch_invariant}) {
        EXPECT_LT(relative_error(attend(q, segments, shape, product), expected), 2e-6)
            << shape.n_heads << "/" << shape.n_kv_heads << " d " << shape.head_dim << " rows "
            << n_rows;
      }
    }
  }
}

// What a chunk of a block sees through a window: of the tokens before the block, and of its own.
TEST_P(CpuBackend, AttentionThroughWindowsEqualsSoftmaxInDouble) {
  const AttentionShape shape{6, 2, 32};
  const std::int64_t n = 2700, width = shape.n_kv_heads * shape.head_dim;
  const std::size_t row_bytes = static_cast<std::size_t>(width) * sizeof(float);
  const std::vector<std::pair<Floats, Floats>> kv = {
      {random_floats(static_cast<std::size_t>(n * width), 1),
       random_floats(static_cast<std::size_t>(n * width), 2)}};
  for (const std::int64_t n_rows : {1, 5, 200}) {
    for (const std::int64_t n_own : {n_rows, n_rows + 90, n}) {
      for (const std::int64_t window : {1, 2, 129, 1000, 2300, 2700, 5000}) {
        const Floats q =
            random_floats(static_cast<std::size_t>(n_rows * shape.n_heads * shape.head_dim), 3);
        KvSegment all = segment_of(kv[0].first, kv[0].second, n, /*causal=*/true);
        KvSegment own = all.from(n - n_own, row_bytes), halo = all;
        halo.n_tokens = n - n_own;
        halo.causal = false;
        const std::vector<KvSegment> seen = {
            through_window(halo, window, n - n_rows, n_rows, row_bytes),
            through_window(own, window, n_own - n_rows, n_rows, row_bytes)};
        EXPECT_LE(seen[0].n_tokens + seen[1].n_tokens, window + n_rows - 1);
        all.first_seen = n - n_rows - window + 1;
        const std::vector<double> expected = reference(q, kv, {all}, shape);
        for (const Product product : {Product::chunk, Product::batch_invariant}) {
          EXPECT_LT(relative_error(attend(q, seen, shape, product), expected), 2e-6)
              << n_rows << " rows, " << n_own << " own tokens, window " << window;
        }
      }
    }
  }
}

TEST_P(CpuBackend, RowsAttendFromTheirOwnFirstTokens) {
  const AttentionShape shape{4, 2, 16};
  const std::int64_t n = 300, width = shape.n_kv_heads * shape.head_dim;
  const std::vector<std::pair<Floats, Floats>> kv = {
      {random_floats(static_cast<std::size_t>(n * width), 1),
       random_floats(static_cast<std::size_t>(n * width), 2)}};
  const std::vector<std::int64_t> first = {0, 299, 17, 130, 0};
  Floats q = random_floats(first.size() * 64, 3);
  const Rows rows = rows_of(q, 64);
  OwnPartial partial(rows.n_rows, shape);
  const KvSegment all = segment_of(kv[0].first, kv[0].second, n, false);
  backend_->attend_from(rows, all, first, shape, partial.view());
  Floats out(q.size(), NAN);
  backend_->finish(partial.view(), shape, rows_of(out, rows.width));
  for (std::size_t i = 0; i < first.size(); ++i) {
    const auto at = static_cast<std::ptrdiff_t>(i * 64);
    KvSegment seen = all;
    seen.first_seen = first[i];
    EXPECT_LT(relative_error({out.begin() + at, out.begin() + at + 64},
                             reference({q.begin() + at, q.begin() + at + 64}, kv, {seen}, shape)),
              2e-6);
  }
}

TEST_P(CpuBackend, ARowsAttentionKnowsNothingOfOtherRowsOrThreads) {
  const AttentionShape shape{6, 2, 64};
  const std::int64_t n = 5000;
  const auto size = static_cast<std::size_t>(n * shape.n_kv_heads * shape.head_dim);
  const Floats k = random_floats(size, 1);
  const Floats v = random_floats(size, 2);
  const std::vector<KvSegment> segments = {segment_of(k, v, n, false)};
  const auto width = static_cast<std::size_t>(shape.n_heads * shape.head_dim);
  const Floats q = random_floats(37 * width, 3);
  const Floats together = attend(q, segments, shape, Product::batch_invariant);
  const auto one_thread = make_cpu_backend(1);
  EXPECT_EQ(together, attend(q, segments, shape, Product::batch_invariant, one_thread.get()));
  for (const std::size_t row : {0, 17, 36}) {
    const Floats alone(q.begin() + static_cast<std::ptrdiff_t>(row * width),
                       q.begin() + static_cast<std::ptrdiff_t>((row + 1) * width));
    const Floats out = attend(alone, segments, shape, Product::batch_invariant);
    EXPECT_EQ(0, std::memcmp(out.data(), together.data() + row * width, width * sizeof(float)));
  }
}

TEST_P(CpuBackend, ScoresThatAreNoNumbersAreNotTakenForNoKeys) {
  const AttentionShape shape{4, 2, 32};
  const Floats kv = random_floats(static_cast<std::size_t>(100 * 2 * 32), 1);
  Floats q = random_floats(static_cast<std::size_t>(3 * 4 * 32), 3);
  q[4 * 32] = NAN;  // of row 1, head 0
  for (const Product product : {Product::chunk, Product::batch_invariant}) {
    const Floats out = attend(q, {segment_of(kv, kv, 100, false)}, shape, product);
    for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i / 32 == 4) << i;
  }
}

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

TEST_P(CpuBackend, MergingPartsEqualsTheWhole) {
  const AttentionShape shape{4, 2, 32};
  const auto size = static_cast<std::size_t>(100 * shape.n_kv_heads * shape.head_dim);
  const Floats k = random_floats(size, 1);
  const Floats v = random_floats(size, 2);
  Floats q = random_floats(static_cast<std::size_t>(3 * shape.n_heads * shape.head_dim), 3);
  const Rows rows = rows_of(q, shape.n_heads * shape.head_dim);
  const auto offset = static_cast<std::ptrdiff_t>(40 * shape.n_kv_heads * shape.head_dim);
  const KvSegment first = segment_of(k, v, 40, false);
  KvSegment second = segment_of(k, v, 60, false);
  second.k += offset * 4;
  second.v += offset * 4;
  OwnPartial a(3, shape);
  OwnPartial b(3, shape);
  for (OwnPartial* part : {&a, &b}) backend_->clear(part->view(), shape);
  backend_->attend(rows, {&first, 1}, shape, Product::batch_invariant, a.view());
  backend_->attend(rows, {&second, 1}, shape, Product::batch_invariant, b.view());
  backend_->merge(a.view(), b.view(), shape);
  Floats merged(q.size());
  backend_->finish(a.view(), shape, rows_of(merged, rows.width));
  const Floats whole = attend(q, {segment_of(k, v, 100, false)}, shape, Product::batch_invariant);
  EXPECT_LT(relative_error(merged, {whole.begin(), whole.end()}), 1e-6);
}

// A sink is a key whose score is learned and whose value is zero.
TEST_P(CpuBackend, SinksAreKeysWithoutValues) {
  const AttentionShape shape{4, 2, 16};
  const std::int64_t n = 40, n_rows = 3;
  const Floats k = random_floats(static_cast<std::size_t>(n * 32), 1);
  const Floats v = random_floats(static_cast<std::size_t>(n * 32), 2);
  Floats q = random_floats(static_cast<std::size_t>(n_rows * 64), 3);
  const Floats scores = {-1, 3, 0.5, 90};
  const WeightView sinks{reinterpret_cast<const std::byte*>(scores.data()), Dtype::f32, 1, 4};
  const Floats plain = attend(q, {segment_of(k, v, n, false)}, shape, Product::chunk);
  OwnPartial partial(n_rows, shape);
  backend_->attend_alone(rows_of(q, 64), std::vector{segment_of(k, v, n, false)}, shape,
                         Product::chunk, partial.view());
  const OwnPartial before = partial;
  backend_->merge_sinks(partial.view(), sinks, shape);
  Floats out(q.size(), NAN);
  backend_->finish(partial.view(), shape, rows_of(out, 64));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t head = i / 16;
    const double keys = std::log(double{before.l[head]}) + double{before.m[head]};
    const double share = 1 / (1 + std::exp(double{scores[head % 4]} - keys));
    EXPECT_NEAR(out[i], share * plain[i], 1e-6);
  }
  // Where there are no keys, nothing comes of it.
  OwnPartial empty(n_rows, shape);
  backend_->clear(empty.view(), shape);
  backend_->merge_sinks(empty.view(), sinks, shape);
  backend_->finish(empty.view(), shape, rows_of(out, 64));
  EXPECT_EQ(out, Floats(out.size(), 0.0F));
}

TEST_P(CpuBackend, EmptyPartialsMergeToTheEmptyOne) {
  const AttentionShape shape{2, 1, 16};
  OwnPartial a(2, shape);
  OwnPartial b(2, shape);
  backend_->clear(a.view(), shape);
  backend_->clear(b.view(), shape);
  backend_->merge(a.view(), b.view(), shape);
  for (std::size_t i = 0; i < a.m.size(); ++i) {
    EXPECT_EQ(a.m[i], -INFINITY);
    EXPECT_EQ(a.l[i], 0);
  }
  for (const float o : a.o) EXPECT_EQ(o, 0);
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

// Recall's operations against the plain formula (docs/recall.md).
TEST_P(CpuBackend, RecallScoresFollowTheFormula) {
  const AttentionShape shape{6, 2, 32};
  constexpr std::int64_t kRows = 70, kKeys = 300, kBefore = 45;
  std::mt19937 random(3);
  std::normal_distribution<float> bell;
  const auto numbers = [&](std::int64_t n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = bell(random);
    return values;
  };
  const std::vector<float> q = numbers(kRows * 6 * 32), k = numbers(kKeys * 2 * 32),
                           before = numbers(kBefore * 2 * 32);
  const auto dot = [&](std::int64_t row, std::int64_t head, const std::vector<float>& keys,
                       std::int64_t token) {
    double sum = 0;
    for (std::int64_t c = 0; c < 32; ++c)
      sum += static_cast<double>(q[static_cast<std::size_t>((row * 6 + head) * 32 + c)]) *
             keys[static_cast<std::size_t>((token * 2 + head / 3) * 32 + c)];
    return sum / std::sqrt(32.0);
  };
  const auto bytes = [](const std::vector<float>& values) {
    return reinterpret_cast<std::byte*>(const_cast<float*>(values.data()));
  };
  const Rows rows{bytes(q), kRows, 6 * 32};
  std::vector<float> z(kRows * 6), scores(kKeys);
  backend_->log_sum_exp(rows, {bytes(before), nullptr, kBefore, false}, {}, shape, z.data());
  backend_->score_keys(rows, z.data(), {bytes(k), nullptr, kKeys, false}, shape, scores.data());
  for (const std::int64_t token : {0, 127, 128, 299}) {
    double expected = 0;
    for (std::int64_t head = 0; head < 6; ++head) {
      double best = -1e30;
      for (std::int64_t row = 0; row < kRows; ++row) {
        double sum = 0;
        for (std::int64_t t = 0; t < kBefore; ++t) sum += std::exp(dot(row, head, before, t));
        EXPECT_NEAR(z[static_cast<std::size_t>(row * 6 + head)], std::log(sum), 1e-4);
        best = std::max(best, dot(row, head, k, token) - std::log(sum));
      }
      expected += std::exp(best) / 6;
    }
    EXPECT_NEAR(scores[static_cast<std::size_t>(token)], expected, 1e-4 * expected);
  }
}

TEST_P(CpuBackend, TheOddRowsOutAsk) {
  const AttentionShape shape{4, 2, 16};
  std::vector<float> k(200 * 32, 1.0F);
  for (const std::size_t odd : {7, 150, 199})
    for (std::size_t c = 0; c < 32; c += 2) k[odd * 32 + c] = -1.0F;
  std::vector<std::int32_t> rows(3);
  backend_->choose_asking_rows({reinterpret_cast<std::byte*>(k.data()), nullptr, 200, false}, shape,
                               3, rows.data());
  EXPECT_EQ(rows, (std::vector<std::int32_t>{7, 150, 199}));
}

TEST_P(CpuBackend, OfEqualScoresTheEarlierAreChosen) {
  const std::vector<float> scores = {1, std::nanf(""), 3, 1, 3, 1, -INFINITY, 1};
  std::vector<std::int32_t> best(4);
  std::vector<float> theirs(4);
  backend_->choose_best(scores.data(), 8, 4, best.data(), theirs.data());
  EXPECT_EQ(best, (std::vector<std::int32_t>{0, 2, 3, 4}));
  EXPECT_EQ(theirs, (std::vector<float>{1, 3, 1, 3}));
}

INSTANTIATE_TEST_SUITE_P(Kernels, CpuBackend, ::testing::Values("portable", "avx2", "avx512"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace starattn
