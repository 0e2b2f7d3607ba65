// SPDX-License-Identifier: Apache-2.0
// Each operation of the CUDA backend against the CPU's, on fresh random bf16 numbers. Results are
// rounded to bf16 once (2^-9), sums of products run over bf16 operands exactly as on the CPU, so
// the bounds are a few such roundings.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <list>
#include <random>
#include <tuple>

#include "backend/backend.h"
#include "base/error.h"
#include "model/decoder.h"

namespace starattn {
namespace {

using Floats = std::vector<float>;

float bf16_of(float x) {
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

std::vector<std::uint16_t> as_bf16(const Floats& values) {
  std::vector<std::uint16_t> bits;
  for (const float value : values) bits.push_back(f32_to_bf16(value));
  return bits;
}

// Largest difference, relative to the largest value.
double difference(const Floats& a, const Floats& b) {
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

TEST_F(CudaBackend, Embeds) {
  const WeightView table = weight(numbers_.bell(50 * 384), 384);
  const std::vector<Token> tokens{3, 0, 49, 3};
  expect_same(0, [&](Side& side) {
    const Rows x = side.empty(4, 384);
    side.backend->embed(tokens, table, x);
    return side.get(x);
  });
}

TEST_F(CudaBackend, NormalisesRowsOfAnyWidth) {
  for (const std::int64_t width : {64, 128, 384, 896, 4096, 8192, 16384}) {
    const WeightView scale = weight(numbers_.bell(width), width);
    const Floats values = numbers_.bell(37 * width, 3);
    expect_same(kOneRounding, [&](Side& side) {
      const Rows x = side.rows(values, width);
      side.backend->rms_norm(x, scale, 1e-5, x);
      return side.get(x);
    });
  }
}

TEST_F(CudaBackend, MultipliesWithAndWithoutBias) {
  struct Shape {
    std::int64_t n_rows, n_out, n_in;
  };
  for (const Shape& s :
       {Shape{1, 64, 384}, Shape{5, 100, 96}, Shape{33, 2048, 1024}, Shape{257, 896, 4864}}) {
    const WeightView w = weight(numbers_.bell(s.n_out * s.n_in), s.n_in);
    const WeightView bias = weight(numbers_.bell(s.n_out, 10), s.n_out);
    const Floats values = numbers_.bell(s.n_rows * s.n_in);
    const Floats before = numbers_.bell(s.n_rows * s.n_out, 10);
    for (const Product product : {Product::chunk, Product::thin}) {
      const double when_added = product == Product::chunk ? kTwoRoundings : kOneRounding;
      SCOPED_TRACE(::testing::Message() << s.n_rows << " x " << s.n_in << " x " << s.n_out
                                        << (product == Product::thin ? ", thin" : ", chunk"));
      for (const bool with_bias : {false, true}) {
        expect_same(kOneRounding, [&](Side& side) {
          const Rows y = side.empty(s.n_rows, s.n_out);
          const WeightView b = with_bias ? bias : WeightView{};
          side.backend->linear(side.rows(values, s.n_in), {w, b, y}, product);
          return side.get(y);
        });
        expect_same(when_added, [&](Side& side) {
          const Rows x = side.rows(before, s.n_out);
          side.backend->add_linear(x, side.rows(values, s.n_in), w, with_bias ? bias : WeightView{},
                                   product, side.empty(s.n_rows, s.n_out));
          return side.get(x);
        });
      }
    }
    expect_same(1e-5, [&](Side& side) {
      Floats logits(static_cast<std::size_t>(s.n_rows * s.n_out));
      side.backend->linear_to_host(side.rows(values, s.n_in), w, logits);
      return logits;
    });
  }
}

TEST_F(CudaBackend, FindsTheFirstHighest) {
  for (const std::int64_t n_out : {1, 31, 1000, 128256}) {
    const std::int64_t n_in = 64, n_rows = 33;
    const WeightView w = weight(numbers_.bell(n_out * n_in), n_in);
    const Rows x = gpu_->rows(numbers_.bell(n_rows * n_in), n_in);
    Floats logits(static_cast<std::size_t>(n_rows * n_out));
    gpu_->backend->linear_to_host(x, w, logits);
    std::vector<Token> tokens(static_cast<std::size_t>(n_rows));
    gpu_->backend->next_tokens(x, w, std::vector<Draw>(tokens.size()), tokens);
    for (std::int64_t row = 0; row < n_rows; ++row) {
      const auto first = logits.begin() + row * n_out;
      EXPECT_EQ(tokens[static_cast<std::size_t>(row)],
                std::max_element(first, first + n_out) - first)
          << n_out << ", row " << row;
    }
  }
  // Equal logits: the first of them. Not a number: refused.
  const WeightView same = weight(Floats(5000 * 64, 1), 64);
  Floats values(2 * 64, 1);
  std::vector<Token> tokens(2, -1);
  const std::vector<Draw> greedy(2);
  gpu_->backend->next_tokens(gpu_->rows(values, 64), same, greedy, tokens);
  EXPECT_EQ(tokens, (std::vector<Token>{0, 0}));
  // Half of the tokens that are all equal: the first half.
  const std::vector<Draw> drawn{{1, 0.5, 0}, {1, 0.5, std::nextafter(1.0, 0.0)}};
  gpu_->backend->next_tokens(gpu_->rows(values, 64), same, drawn, tokens);
  EXPECT_EQ(tokens, (std::vector<Token>{0, 2499}));
  values[70] = std::nanf("");
  for (const auto& draws : {greedy, drawn})
    EXPECT_ANY_THROW(gpu_->backend->next_tokens(gpu_->rows(values, 64), same, draws, tokens));
}

// Sizes around a block of threads; places in its first, middle and last warp.
TEST_F(CudaBackend, SeesEveryLogitOfARow) {
  const std::int64_t n_in = 64;
  const Rows x = gpu_->rows(Floats(static_cast<std::size_t>(n_in), 1), n_in);
  const auto weight_with = [&](std::int64_t n_out, std::initializer_list<std::int64_t> places,
                               float value) {
    Floats values(static_cast<std::size_t>(n_out * n_in), 1);
    for (const std::int64_t place : places) values[static_cast<std::size_t>(place * n_in)] = value;
    return weight(values, n_in);
  };
  std::vector<Token> token(1);
  for (const std::int64_t n_out : {1, 31, 1023, 1024, 1025, 2049}) {
    for (const std::int64_t place : {std::int64_t{0}, n_out / 2, n_out - 1}) {
      for (const Draw draw : {Draw{}, Draw{1, 0.9, 0.5}}) {
        const WeightView bad = weight_with(n_out, {place}, std::nanf(""));
        EXPECT_ANY_THROW(gpu_->backend->next_tokens(x, bad, {&draw, 1}, token))
            << n_out << ", place " << place;
      }
      const Draw greedy;
      gpu_->backend->next_tokens(x, weight_with(n_out, {place, n_out - 1}, 2), {&greedy, 1}, token);
      EXPECT_EQ(token[0], place) << "equal ones at " << place << " and " << n_out - 1;
    }
  }
}

TEST_F(CudaBackend, DrawsTokens) {
  // A draw is monotone: the GPU's token lies between those of slightly smaller and larger random
  // numbers. Its weights are fp32; one of 128,256 equal tokens more or less in the nucleus is 8e-6.
  constexpr double kSlack = 2e-5;
  for (const std::int64_t n_out : {1, 31, 1000, 128256}) {
    const std::int64_t n_in = 64, n_rows = 33;
    const WeightView w = weight(numbers_.bell(n_out * n_in), n_in);
    const Rows x = gpu_->rows(numbers_.bell(n_rows * n_in), n_in);
    Floats logits(static_cast<std::size_t>(n_rows * n_out));
    gpu_->backend->linear_to_host(x, w, logits);
    for (const double temperature : {1e-300, 0.3, 1.0, 8.0, 100.0}) {
      std::vector<Draw> draws;
      for (std::int64_t row = 0; row < n_rows; ++row) {
        const double top_p = std::array{1.0, 0.95, 0.5, 0.0}[static_cast<std::size_t>(row % 4)];
        draws.push_back({temperature, top_p, static_cast<double>(row) / n_rows});
      }
      std::vector<Token> tokens(draws.size());
      gpu_->backend->next_tokens(x, w, draws, tokens);
      for (std::size_t row = 0; row < draws.size(); ++row) {
        const auto n = static_cast<std::size_t>(n_out);
        const auto of_row = std::span(logits).subspan(row * n, n);
        Draw less = draws[row], more = draws[row];
        less.unit = std::max(0.0, less.unit - kSlack);
        more.unit += kSlack;
        EXPECT_GE(tokens[row], next_token(of_row, less)) << n_out << ", row " << row;
        EXPECT_LE(tokens[row], next_token(of_row, more)) << n_out << ", row " << row;
      }
    }
  }
}

TEST_F(CudaBackend, ThinProductsTreatRowsOneByOne) {
  const std::int64_t n_in = 4096, n_out = 1000, n_rows = 77;
  const WeightView w = weight(numbers_.bell(n_out * n_in), n_in);
  const Floats values = numbers_.bell(n_rows * n_in);
  Floats all(static_cast<std::size_t>(n_rows * n_out));
  gpu_->backend->linear_to_host(gpu_->rows(values, n_in), w, all);
  for (const std::int64_t n : {1, 8, 9, 16, 17, 32, 40}) {
    const std::int64_t first = n_rows - n;
    const Floats some(values.begin() + first * n_in, values.end());
    Floats part(static_cast<std::size_t>(n * n_out));
    gpu_->backend->linear_to_host(gpu_->rows(some, n_in), w, part);
    EXPECT_EQ(0, std::memcmp(part.data(), all.data() + first * n_out, part.size() * 4)) << n;
  }
}

TEST_F(CudaBackend, RotatesHeads) {
  for (const std::int64_t head_dim : {16, 64, 128}) {
    const std::int64_t n_rows = 19, width = 6 * head_dim;
    const Floats values = numbers_.bell(n_rows * width);
    const Floats cos = numbers_.bell(n_rows * head_dim / 2),
                 sin = numbers_.bell(n_rows * head_dim / 2);
    expect_same(kOneRounding, [&](Side& side) {
      const Rows x = side.rows(values, width);
      side.backend->rope(x, head_dim,
                         reinterpret_cast<const float*>(side.keep(std::as_bytes(std::span(cos)))),
                         reinterpret_cast<const float*>(side.keep(std::as_bytes(std::span(sin)))));
      return side.get(x);
    });
  }
}

TEST_F(CudaBackend, RotatesQueriesAndKeysTogether) {
  const std::int64_t n_rows = 5, head_dim = 64;
  const Floats q = numbers_.bell(n_rows * 6 * head_dim), k = numbers_.bell(n_rows * 2 * head_dim);
  const Floats cos = numbers_.bell(n_rows * head_dim / 2),
               sin = numbers_.bell(n_rows * head_dim / 2);
  expect_same(kOneRounding, [&](Side& side) {
    const Rows q_rows = side.rows(q, 6 * head_dim), k_rows = side.rows(k, 2 * head_dim);
    side.backend->rope_both(
        q_rows, k_rows, head_dim,
        reinterpret_cast<const float*>(side.keep(std::as_bytes(std::span(cos)))),
        reinterpret_cast<const float*>(side.keep(std::as_bytes(std::span(sin)))));
    Floats both = side.get(q_rows);
    const Floats keys = side.get(k_rows);
    both.insert(both.end(), keys.begin(), keys.end());
    return both;
  });
}

// The rows of a step: one of a query that has 70 tokens, three of one with 200, one of a new one.
TEST_F(CudaBackend, AttendsToOwnTokensAndKeepsThem) {
  for (const AttentionShape shape : {AttentionShape{6, 2, 64}, AttentionShape{8, 2, 128}}) {
    const std::int64_t kv_width = shape.n_kv_heads * shape.head_dim;
    const std::int64_t n_before[] = {70, 200, 201, 202, 0}, n_beside[] = {0, 0, 1, 2, 0};
    const std::size_t query_of[] = {0, 1, 1, 1, 2};
    const Floats q = numbers_.bell(5 * shape.n_heads * shape.head_dim);
    const Floats k = numbers_.bell(5 * kv_width), v = numbers_.bell(5 * kv_width);
    const Floats context_k = numbers_.bell(90 * kv_width), context_v = numbers_.bell(90 * kv_width);
    std::vector<Floats> kept;  // of three queries: k, v, k, v, k, v
    for (int i = 0; i < 6; ++i) kept.push_back(numbers_.bell(203 * kv_width));
    const auto outputs = [&](Side& side, Floats& kept_after) {
      std::vector<Rows> own_rows;
      for (const Floats& values : kept) own_rows.push_back(side.rows(values, kv_width));
      std::vector<OwnTokens> own;
      for (std::size_t i = 0; i < 5; ++i)
        own.push_back({own_rows[2 * query_of[i]].data, own_rows[2 * query_of[i] + 1].data,
                       n_before[i], n_beside[i]});
      const Rows q_rows = side.rows(q, shape.n_heads * shape.head_dim);
      const KvSegment context{side.rows(context_k, kv_width).data,
                              side.rows(context_v, kv_width).data, 90, false};
      const Partial partial = side.partial(5, shape);
      side.backend->attend_alone(q_rows, {&context, 1}, shape, Product::thin, partial);
      const Rows out = side.empty(5, q_rows.width);
      side.backend->attend_own(q_rows, side.rows(k, kv_width), side.rows(v, kv_width), own, shape,
                               partial, out);
      for (const Rows& rows : own_rows) {
        const Floats values = side.get(rows);
        kept_after.insert(kept_after.end(), values.begin(), values.end());
      }
      return side.get(out);
    };
    Floats cpu_kept, gpu_kept;
    const Floats expected = outputs(*cpu_, cpu_kept);
    EXPECT_LE(difference(outputs(*gpu_, gpu_kept), expected), kAttention);
    EXPECT_EQ(gpu_kept, cpu_kept);
  }
}

// More rows than one launch takes, all of one query: tokens 7 to 136.
TEST_F(CudaBackend, AttendsToManyRowsBesideEachOther) {
  const AttentionShape shape{6, 2, 64};
  const std::int64_t kv_width = shape.n_kv_heads * shape.head_dim, n_rows = 130, n_before = 7;
  const Floats q = numbers_.bell(n_rows * shape.n_heads * shape.head_dim);
  const Floats k = numbers_.bell(n_rows * kv_width), v = numbers_.bell(n_rows * kv_width);
  const Floats kept_k = numbers_.bell((n_before + n_rows) * kv_width),
               kept_v = numbers_.bell((n_before + n_rows) * kv_width);
  expect_same(kAttention, [&](Side& side) {
    const Rows own_k = side.rows(kept_k, kv_width), own_v = side.rows(kept_v, kv_width);
    std::vector<OwnTokens> own;
    for (std::int64_t i = 0; i < n_rows; ++i)
      own.push_back({own_k.data, own_v.data, n_before + i, i});
    const Rows q_rows = side.rows(q, shape.n_heads * shape.head_dim);
    const Rows out = side.empty(n_rows, q_rows.width);
    side.backend->attend_own(q_rows, side.rows(k, kv_width), side.rows(v, kv_width), own, shape,
                             side.partial(n_rows, shape), out);
    return side.get(out);
  });
}

TEST_F(CudaBackend, GatesAProduct) {
  const std::int64_t n_in = 520, n_out = 200;
  const WeightView gate = weight(numbers_.bell(n_out * n_in, 0.1F), n_in);
  const WeightView up = weight(numbers_.bell(n_out * n_in, 0.1F), n_in);
  const WeightView bias = weight(numbers_.bell(n_out), n_out);
  for (const std::int64_t n_rows : {1, 9, 32, 40}) {
    const Floats x = numbers_.bell(n_rows * n_in);
    for (const Product product : {Product::thin, Product::chunk}) {
      expect_same(kTwoRoundings, [&](Side& side) {
        const Rows y = side.empty(n_rows, n_out);
        side.backend->linear_gated(side.rows(x, n_in), {gate, bias, y},
                                   {up, bias, side.empty(n_rows, n_out)}, product);
        return side.get(y);
      });
    }
  }
}

TEST_F(CudaBackend, AddsAndGates) {
  const Floats a = numbers_.bell(13 * 1000, 4), b = numbers_.bell(13 * 1000, 4);
  expect_same(kOneRounding, [&](Side& side) {
    const Rows x = side.rows(a, 1000);
    side.backend->add(x, side.rows(b, 1000));
    return side.get(x);
  });
  expect_same(kOneRounding, [&](Side& side) {
    const Rows x = side.rows(a, 1000);
    side.backend->swiglu(x, side.rows(b, 1000), x);
    return side.get(x);
  });
}

struct AttentionCase {
  AttentionShape shape;
  std::int64_t n_rows;
  std::vector<std::int64_t> segments;
  bool causal;
};

std::ostream& operator<<(std::ostream& out, const AttentionCase& c) {
  out << c.shape.n_heads << "/" << c.shape.n_kv_heads << " heads of " << c.shape.head_dim << ", "
      << c.n_rows << " rows,";
  for (const std::int64_t n : c.segments) out << " " << n;
  return out << (c.causal ? ", causal" : "");
}

class CudaAttention : public CudaBackend,
                      public ::testing::WithParamInterface<std::tuple<const char*, AttentionCase>> {
 protected:
  std::vector<KvSegment> segments(Side& side) {
    std::vector<KvSegment> all;
    const std::int64_t width = c_.shape.n_kv_heads * c_.shape.head_dim;
    for (std::size_t i = 0; i < c_.segments.size(); ++i) {
      all.push_back({side.rows(k_[i], width).data, side.rows(v_[i], width).data, c_.segments[i],
                     c_.causal && i + 1 == c_.segments.size()});
    }
    return all;
  }
  void SetUp() override {
    CudaBackend::SetUp();
    if (IsSkipped()) return;
    ::setenv("STARATTN_KERNELS", std::get<0>(GetParam()), 1);
    q_ = numbers_.bell(c_.n_rows * c_.shape.n_heads * c_.shape.head_dim, 2);
    for (const std::int64_t n : c_.segments) {
      k_.push_back(numbers_.bell(n * c_.shape.n_kv_heads * c_.shape.head_dim));
      v_.push_back(numbers_.bell(n * c_.shape.n_kv_heads * c_.shape.head_dim));
    }
  }

  void TearDown() override { ::unsetenv("STARATTN_KERNELS"); }

  const AttentionCase& c_ = std::get<1>(GetParam());
  Floats q_;
  std::vector<Floats> k_, v_;
};

TEST_P(CudaAttention, EqualsTheCpus) {
  const std::int64_t width = c_.shape.n_heads * c_.shape.head_dim;
  for (const Product product : {Product::chunk, Product::thin}) {
    expect_same(kAttention, [&](Side& side) {
      const Rows out = side.empty(c_.n_rows, width);
      side.backend->attend_all(side.rows(q_, width), segments(side), c_.shape, product,
                               side.partial(c_.n_rows, c_.shape), out);
      return side.get(out);
    });
    // One segment after another, each merged into what is there.
    expect_same(kAttention, [&](Side& side) {
      const Partial partial = side.partial(c_.n_rows, c_.shape);
      for (const KvSegment& segment : segments(side))
        side.backend->attend(side.rows(q_, width), {&segment, 1}, c_.shape, product, partial);
      const Rows out = side.empty(c_.n_rows, width);
      side.backend->finish(partial, c_.shape, out);
      return side.get(out);
    });
    const auto statistics = [&](Side& side) {
      const Partial partial = side.partial(c_.n_rows, c_.shape);
      side.backend->attend(side.rows(q_, width), segments(side), c_.shape, product, partial);
      Floats lse = side.get(partial.m, c_.n_rows * c_.shape.n_heads);
      const Floats l = side.get(partial.l, c_.n_rows * c_.shape.n_heads);
      for (std::size_t i = 0; i < lse.size(); ++i) lse[i] += std::log(l[i]);
      return lse;
    };
    expect_same(1e-5, statistics);
  }
}

TEST_P(CudaAttention, BlocksBesideEachOtherHaveTheBitsOfEachAlone) {
  std::vector<KvSegment> blocks = segments(*gpu_);
  for (KvSegment& block : blocks) block.causal = false;
  const Rows q = gpu_->rows(q_, c_.shape.n_heads * c_.shape.head_dim);
  const auto numbers = [&](const Partial& partial) {
    const std::int64_t n = c_.n_rows * c_.shape.n_heads;
    std::vector<Floats> all = {gpu_->get(partial.o, n * c_.shape.head_dim), gpu_->get(partial.m, n),
                               gpu_->get(partial.l, n)};
    return all;
  };
  std::vector<Partial> together, merged, alone;
  for (const KvSegment& block : blocks) {
    together.push_back(gpu_->partial(c_.n_rows, c_.shape));
    merged.push_back(gpu_->partial(c_.n_rows, c_.shape));
    alone.push_back(gpu_->partial(c_.n_rows, c_.shape));
    gpu_->backend->attend_alone(q, {&block, 1}, c_.shape, Product::thin, alone.back());
  }
  gpu_->backend->attend_blocks(q, blocks, c_.shape, {}, together);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    EXPECT_EQ(numbers(together[i]), numbers(alone[i])) << "block " << i;

  // Merged along a tree, in one launch or one by one: the same bits.
  std::vector<Merge> merges;
  const auto n = static_cast<int>(blocks.size());
  for (int step = 1; step < n; step *= 2)
    for (int i = 0; i + step < n; i += 2 * step) merges.push_back({i, i + step});
  gpu_->backend->attend_blocks(q, blocks, c_.shape, merges, merged);
  gpu_->backend->merge_all(together, merges, c_.shape);
  for (const Merge& merge : merges)
    gpu_->backend->merge(alone[static_cast<std::size_t>(merge.into)],
                         alone[static_cast<std::size_t>(merge.from)], c_.shape);
  EXPECT_EQ(numbers(merged[0]), numbers(alone[0]));
  EXPECT_EQ(numbers(together[0]), numbers(alone[0]));
}

// Pieces of keys: a row has the bits that it has among others.
TEST_P(CudaAttention, ThinTreatsRowsOneByOne) {
  if (c_.causal) GTEST_SKIP() << "rows of phase 2 see all keys";
  const std::int64_t width = c_.shape.n_heads * c_.shape.head_dim;
  const auto outputs = [&](std::int64_t first, std::int64_t n) {
    const Floats q(q_.begin() + first * width, q_.begin() + (first + n) * width);
    const Partial partial = gpu_->partial(n, c_.shape);
    gpu_->backend->attend_alone(gpu_->rows(q, width), segments(*gpu_), c_.shape, Product::thin,
                                partial);
    return gpu_->get(partial.o, n * width);
  };
  const Floats all = outputs(0, c_.n_rows);
  for (const std::int64_t n : {std::int64_t{1}, c_.n_rows / 2}) {
    const std::int64_t first = c_.n_rows - n;
    const Floats some = outputs(first, n);
    EXPECT_EQ(0, std::memcmp(some.data(), all.data() + first * width, some.size() * 4)) << n;
  }
}

// The kernels that the device takes by itself, and those that every device has.
INSTANTIATE_TEST_SUITE_P(
    Shapes, CudaAttention,
    ::testing::Combine(
        ::testing::Values("", "sm80"),
        ::testing::Values(
            AttentionCase{{6, 2, 64}, 1, {1}, true}, AttentionCase{{6, 2, 64}, 70, {300, 70}, true},
            AttentionCase{{8, 2, 128}, 257, {100, 1, 400}, true},
            AttentionCase{{8, 8, 128}, 33, {2000}, false},
            AttentionCase{{16, 2, 64}, 300, {10, 20, 30, 40, 50, 60, 70, 80, 90, 500}, true},
            AttentionCase{{14, 2, 128}, 5, {5000}, false},
            AttentionCase{{32, 2, 128}, 12, {700, 1, 3000}, false},
            AttentionCase{{14, 2, 64}, 40, {9000}, false})));

TEST_F(CudaBackend, TwoEmptyPartialsMergeToTheEmptyOne) {
  const AttentionShape shape{4, 2, 64};
  const Partial a = gpu_->partial(3, shape), b = gpu_->partial(3, shape);
  gpu_->backend->merge(a, b, shape);
  EXPECT_EQ(gpu_->get(a.l, 12), Floats(12, 0));
  EXPECT_EQ(gpu_->get(a.m, 12), Floats(12, -INFINITY));
  const Rows out = gpu_->empty(3, 256);
  gpu_->backend->finish(a, shape, out);
  EXPECT_EQ(gpu_->get(out), Floats(3 * 256, 0));
}

TEST_F(CudaBackend, RefusesAModelThatNoKernelTakes) {
  ModelConfig config;
  config.hidden_size = 768;
  config.intermediate_size = 2048;
  config.n_heads = 8;
  config.n_kv_heads = 2;
  config.head_dim = 64;
  EXPECT_NO_THROW(gpu_->backend->check_model(config));
  config.head_dim = 96;
  EXPECT_THROW(gpu_->backend->check_model(config), Error);
  config.head_dim = 64;
  config.intermediate_size = 2044;
  EXPECT_THROW(gpu_->backend->check_model(config), Error);
}

TEST_F(CudaBackend, RefusesWhatNoKernelTakes) {
  const AttentionShape shape{4, 2, 48};
  const Rows q = gpu_->empty(3, 4 * 48);
  const KvSegment segment{q.data, q.data, 1, false};
  EXPECT_THROW(
      gpu_->backend->attend(q, {&segment, 1}, shape, Product::chunk, gpu_->partial(3, shape)),
      std::exception);
  EXPECT_THROW(gpu_->backend->allocate(std::size_t{1} << 45), Error);
}

}  // namespace
}  // namespace starattn
