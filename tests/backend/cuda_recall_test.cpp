// SPDX-License-Identifier: Apache-2.0
// Recall's operations on the GPU against the CPU's.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "both_sides.h"

namespace starattn {
namespace {

using Numbers32 = std::vector<std::int32_t>;

struct RecallCase {
  AttentionShape shape;
  std::int64_t n_asking;
  std::int64_t n_before;
  std::int64_t n_own;
  std::int64_t n_earlier;
};

std::ostream& operator<<(std::ostream& out, const RecallCase& c) {
  return out << c.shape.n_heads << "/" << c.shape.n_kv_heads << " heads of " << c.shape.head_dim
             << ", " << c.n_asking << " of " << c.n_own << " rows ask, " << c.n_before
             << " keys before, " << c.n_earlier << " earlier";
}

class CudaRecall : public CudaBackend,
                   public ::testing::WithParamInterface<std::tuple<const char*, RecallCase>> {
 protected:
  void SetUp() override {
    CudaBackend::SetUp();
    if (IsSkipped()) return;
    ::setenv("STARATTN_KERNELS", std::get<0>(GetParam()), 1);
    q_ = numbers_.bell(c_.n_asking * q_width(), 1);
    before_ = numbers_.bell(std::max<std::int64_t>(1, c_.n_before) * kv_width());
    own_ = numbers_.bell(c_.n_own * kv_width());
    earlier_ = numbers_.bell(c_.n_earlier * kv_width());
  }
  void TearDown() override { ::unsetenv("STARATTN_KERNELS"); }

  std::int64_t q_width() const { return c_.shape.n_heads * c_.shape.head_dim; }
  std::int64_t kv_width() const { return c_.shape.n_kv_heads * c_.shape.head_dim; }
  KvSegment segment(Side& side, const Floats& keys, std::int64_t n) {
    return {side.rows(keys, kv_width()).data, nullptr, n, false};
  }
  float* log_sums(Side& side, Rows q) {
    const Floats none(static_cast<std::size_t>(c_.n_asking * c_.shape.n_heads));
    auto* z = reinterpret_cast<float*>(side.keep(std::as_bytes(std::span(none))));
    side.backend->log_sum_exp(q, segment(side, before_, c_.n_before), segment(side, own_, c_.n_own),
                              c_.shape, z);
    return z;
  }
  Floats scores(Side& side, std::int64_t first) {
    const Rows q = side.rows(q_, q_width());
    const float* z = log_sums(side, q);
    const Floats none(static_cast<std::size_t>(c_.n_earlier - first));
    auto* scores = reinterpret_cast<float*>(side.keep(std::as_bytes(std::span(none))));
    const Floats keys(earlier_.begin() + first * kv_width(), earlier_.end());
    side.backend->score_keys(q, z, segment(side, keys, c_.n_earlier - first), c_.shape, scores);
    return side.get(scores, c_.n_earlier - first);
  }

  const RecallCase& c_ = std::get<1>(GetParam());
  Floats q_, before_, own_, earlier_;
};

TEST_P(CudaRecall, LogSumsEqualTheCpus) {
  expect_same(1e-5, [&](Side& side) {
    return side.get(log_sums(side, side.rows(q_, q_width())), c_.n_asking * c_.shape.n_heads);
  });
}

TEST_P(CudaRecall, ScoresEqualTheCpus) {
  expect_same(1e-4, [&](Side& side) {
    Floats logarithms = scores(side, 0);
    for (float& score : logarithms) score = std::log(score);
    return logarithms;
  });
}

TEST_P(CudaRecall, AScoreDependsOnItsKeyAlone) {
  const Floats all = scores(*gpu_, 0);
  const std::int64_t first = c_.n_earlier / 3;
  const Floats some = scores(*gpu_, first);
  EXPECT_EQ(0, std::memcmp(all.data() + first, some.data(), some.size() * sizeof(float)));
}

TEST_P(CudaRecall, TheRowsLeastLikeTheMeanAsk) {
  const auto asking = [&](Side& side) {
    const Numbers32 none(static_cast<std::size_t>(c_.n_asking));
    std::byte* rows = side.keep(std::as_bytes(std::span(none)));
    side.backend->choose_asking_rows(segment(side, own_, c_.n_own), c_.shape, c_.n_asking,
                                     reinterpret_cast<std::int32_t*>(rows));
    Numbers32 found(none.size());
    side.backend->download(rows, std::as_writable_bytes(std::span(found)));
    return found;
  };
  const Numbers32 expected = asking(*cpu_);
  const Numbers32 found = asking(*gpu_);
  EXPECT_TRUE(std::ranges::is_sorted(found));
  Numbers32 both;
  std::ranges::set_intersection(expected, found, std::back_inserter(both));
  // Sums in another order: two rows that are alike to the last digit may change places.
  EXPECT_GE(std::ssize(both), c_.n_asking - 1 - c_.n_asking / 200);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CudaRecall,
    ::testing::Combine(::testing::Values("sm80", "sm90"),
                       ::testing::Values(RecallCase{{8, 2, 128}, 64, 100, 700, 900},
                                         RecallCase{{6, 2, 64}, 1, 0, 1, 5},
                                         RecallCase{{14, 2, 64}, 130, 128, 513, 300},
                                         RecallCase{{4, 4, 128}, 200, 7, 200, 128},
                                         RecallCase{{32, 8, 128}, 257, 65, 4000, 1001})));

class CudaChoice : public CudaBackend {
 protected:
  std::pair<Numbers32, Floats> best(Side& side, const Floats& scores, std::int64_t n) {
    const Numbers32 numbers(static_cast<std::size_t>(n));
    const Floats none(static_cast<std::size_t>(n));
    std::byte* data = side.keep(std::as_bytes(std::span(scores)));
    std::byte* found = side.keep(std::as_bytes(std::span(numbers)));
    std::byte* theirs = side.keep(std::as_bytes(std::span(none)));
    side.backend->choose_best(reinterpret_cast<float*>(data), std::ssize(scores), n,
                              reinterpret_cast<std::int32_t*>(found),
                              reinterpret_cast<float*>(theirs));
    Numbers32 result(numbers.size());
    side.backend->download(found, std::as_writable_bytes(std::span(result)));
    Floats values(none.size());
    side.backend->download(theirs, std::as_writable_bytes(std::span(values)));
    return {result, values};
  }
};

TEST_F(CudaChoice, IsExactlyTheCpus) {
  for (const std::int64_t n : {1, 31, 1024, 1025, 5000, 100000}) {
    Floats scores = numbers_.bell(n);  // bf16 values: many are equal
    if (n > 40) {
      scores[3] = std::numeric_limits<float>::infinity();
      scores[4] = -std::numeric_limits<float>::infinity();
      scores[5] = 0;
      scores[6] = 1e-42F;
    }
    for (const std::int64_t n_best : {std::int64_t{1}, n / 3 + 1, n}) {
      const auto expected = best(*cpu_, scores, n_best);
      const auto found = best(*gpu_, scores, n_best);
      EXPECT_EQ(found.first, expected.first) << n << " " << n_best;
      EXPECT_EQ(found.second, expected.second);
    }
  }
}

TEST_F(CudaChoice, WhatIsNotANumberIsLowest) {
  Floats scores(100, 1.0F);
  scores[0] = scores[50] = std::numeric_limits<float>::quiet_NaN();
  const auto [found, values] = best(*gpu_, scores, 98);
  EXPECT_EQ(std::ranges::count(found, 0) + std::ranges::count(found, 50), 0);
}

TEST_F(CudaChoice, RowsAreGatheredFromManyParts) {
  constexpr std::int64_t kWidth = 128, kParts = 150;
  Numbers32 numbers;
  std::vector<Floats> parts;
  std::int32_t n = 0;
  for (std::int64_t i = 0; i < kParts; ++i) {
    parts.push_back(numbers_.bell((1 + i % 4) * kWidth));
    n += static_cast<std::int32_t>(1 + i % 4);
  }
  for (std::int32_t i = 0; i < n; i += 3) numbers.push_back(n - 1 - i);
  expect_same(0, [&](Side& side) {
    std::vector<RawRows> from;
    for (const Floats& part : parts) from.push_back(side.backend->raw(side.rows(part, kWidth)));
    const auto* rows =
        reinterpret_cast<std::int32_t*>(side.keep(std::as_bytes(std::span(numbers))));
    const Rows to = side.empty(std::ssize(numbers), kWidth);
    side.backend->gather_rows(from, rows, side.backend->raw(to));
    return side.get(to);
  });
}

TEST_F(CudaChoice, FinishedMergedIsMergedAndFinished) {
  const AttentionShape shape{8, 2, 64};
  constexpr std::int64_t kRows = 37;
  const Floats q = numbers_.bell(kRows * 8 * 64), k = numbers_.bell(90 * 2 * 64),
               v = numbers_.bell(90 * 2 * 64);
  expect_same(kAttention, [&](Side& side) {
    const KvSegment first{side.rows(k, 128).data, side.rows(v, 128).data, 50, false};
    const KvSegment second{side.rows(v, 128).data, side.rows(k, 128).data, 90, false};
    const Partial a = side.partial(kRows, shape), b = side.partial(kRows, shape);
    side.backend->attend_alone(side.rows(q, 512), {&first, 1}, shape, Product::chunk, a);
    side.backend->attend_alone(side.rows(q, 512), {&second, 1}, shape, Product::chunk, b);
    const Rows out = side.empty(kRows, 512);
    side.backend->finish_merged(a, b, shape, out);
    return side.get(out);
  });
}

}  // namespace
}  // namespace starattn
