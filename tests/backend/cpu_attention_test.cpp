// SPDX-License-Identifier: Apache-2.0
// Attention of the CPU backend, its partials and their merge against plain softmax in double
// precision; and the promise that a row's bits do not depend on its neighbours or on threads.
#include <cstring>
#include <utility>

#include "cpu_backend.h"

namespace starattn {
namespace {

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

class CpuAttention : public CpuBackendTest {
 protected:
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

TEST_P(CpuAttention, AttentionEqualsSoftmaxInDouble) {
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
TEST_P(CpuAttention, AttentionThroughWindowsEqualsSoftmaxInDouble) {
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

TEST_P(CpuAttention, RowsAttendFromTheirOwnFirstTokens) {
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

TEST_P(CpuAttention, ARowsAttentionKnowsNothingOfOtherRowsOrThreads) {
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

TEST_P(CpuAttention, ScoresThatAreNoNumbersAreNotTakenForNoKeys) {
  const AttentionShape shape{4, 2, 32};
  const Floats kv = random_floats(static_cast<std::size_t>(100 * 2 * 32), 1);
  Floats q = random_floats(static_cast<std::size_t>(3 * 4 * 32), 3);
  q[4 * 32] = NAN;  // of row 1, head 0
  for (const Product product : {Product::chunk, Product::batch_invariant}) {
    const Floats out = attend(q, {segment_of(kv, kv, 100, false)}, shape, product);
    for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i / 32 == 4) << i;
  }
}

TEST_P(CpuAttention, MergingPartsEqualsTheWhole) {
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
  OwnPartial again = a;
  backend_->merge(a.view(), b.view(), shape);
  Floats merged(q.size());
  backend_->finish(a.view(), shape, rows_of(merged, rows.width));
  Floats at_once(q.size());
  backend_->finish_merged(again.view(), b.view(), shape, rows_of(at_once, rows.width));
  EXPECT_EQ(at_once, merged);
  const Floats whole = attend(q, {segment_of(k, v, 100, false)}, shape, Product::batch_invariant);
  EXPECT_LT(relative_error(merged, {whole.begin(), whole.end()}), 1e-6);
}

// A sink is a key whose score is learned and whose value is zero.
TEST_P(CpuAttention, SinksAreKeysWithoutValues) {
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

TEST_P(CpuAttention, EmptyPartialsMergeToTheEmptyOne) {
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

STARATTN_ON_EVERY_INSTRUCTION_SET(CpuAttention);

}  // namespace
}  // namespace starattn
