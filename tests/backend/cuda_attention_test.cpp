// SPDX-License-Identifier: Apache-2.0
// Attention of both phases and the merge of its partials.
#include <cstdlib>
#include <cstring>
#include <tuple>

#include "both_sides.h"

namespace starattn {
namespace {

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
  for (const Product product : {Product::chunk, Product::batch_invariant}) {
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
    gpu_->backend->attend_alone(q, {&block, 1}, c_.shape, Product::batch_invariant, alone.back());
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

// Splits of keys: a row has the bits that it has among others.
TEST_P(CudaAttention, ThinTreatsRowsOneByOne) {
  if (c_.causal) GTEST_SKIP() << "rows of phase 2 see all keys";
  const std::int64_t width = c_.shape.n_heads * c_.shape.head_dim;
  const auto outputs = [&](std::int64_t first, std::int64_t n) {
    const Floats q(q_.begin() + first * width, q_.begin() + (first + n) * width);
    const Partial partial = gpu_->partial(n, c_.shape);
    gpu_->backend->attend_alone(gpu_->rows(q, width), segments(*gpu_), c_.shape,
                                Product::batch_invariant, partial);
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
            AttentionCase{{14, 2, 64}, 40, {9000}, false},
            AttentionCase{{32, 8, 128}, 64, {4000, 2200}, false},
            AttentionCase{{32, 4, 64}, 48, {3000, 5500}, false})));

// What a chunk of a block sees through a window: of the tokens before the block, and of its own.
class CudaWindows : public CudaBackend, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    CudaBackend::SetUp();
    ::setenv("STARATTN_KERNELS", GetParam(), 1);
  }
  void TearDown() override { ::unsetenv("STARATTN_KERNELS"); }
};

TEST_P(CudaWindows, EqualTheCpus) {
  for (const AttentionShape& shape : {AttentionShape{8, 1, 64}, {8, 2, 128}, {6, 6, 64}}) {
    const std::int64_t width = shape.n_heads * shape.head_dim;
    const std::int64_t kv_width = shape.n_kv_heads * shape.head_dim;
    const std::int64_t n_halo = 700, n_own = 900;
    const Floats k = numbers_.bell((n_halo + n_own) * kv_width);
    const Floats v = numbers_.bell((n_halo + n_own) * kv_width);
    for (const std::int64_t n_rows : {1, 77, 900}) {
      const Floats q = numbers_.bell(n_rows * width, 2);
      for (const std::int64_t window : {1, 2, 64, 128, 129, 500, 1500, 2000}) {
        SCOPED_TRACE(testing::Message() << shape.n_heads << "/" << shape.n_kv_heads << " of "
                                        << shape.head_dim << ", " << n_rows << " rows, " << window);
        const auto seen = [&](Side& side) {
          const std::size_t row_bytes = side.backend->kv_layout(shape).row_bytes();
          KvSegment halo{side.rows(k, kv_width).data, side.rows(v, kv_width).data, n_halo};
          KvSegment own = KvSegment{halo.k, halo.v, n_halo + n_own, true}.from(n_halo, row_bytes);
          halo = through_window(halo, window, n_halo + n_own - n_rows, n_rows, row_bytes);
          own = through_window(own, window, n_own - n_rows, n_rows, row_bytes);
          std::vector<KvSegment> segments;
          if (halo.n_tokens > 0) segments.push_back(halo);
          segments.push_back(own);
          return segments;
        };
        expect_same(kAttention, [&](Side& side) {
          const Rows out = side.empty(n_rows, width);
          side.backend->attend_all(side.rows(q, width), seen(side), shape, Product::chunk,
                                   side.partial(n_rows, shape), out);
          return side.get(out);
        });
        expect_same(kAttention, [&](Side& side) {
          const Partial partial = side.partial(n_rows, shape);
          side.backend->attend_alone(side.rows(q, width), seen(side), shape, Product::chunk,
                                     partial);
          const Rows out = side.empty(n_rows, width);
          side.backend->finish(partial, shape, out);
          return side.get(out);
        });
      }
    }
  }
}

TEST_P(CudaWindows, OfPhase2EqualTheCpus) {
  for (const AttentionShape& shape : {AttentionShape{8, 2, 64}, {8, 1, 128}}) {
    for (const std::int64_t n : {127, 300, 512, 2000}) {
      const std::int64_t width = shape.n_heads * shape.head_dim;
      const std::int64_t kv_width = shape.n_kv_heads * shape.head_dim;
      const Floats k = numbers_.bell(n * kv_width), v = numbers_.bell(n * kv_width);
      const std::vector<std::int64_t> first = {0, n - 1, 17, n / 2, n, 0};
      const Floats q = numbers_.bell(6 * width, 2);
      const auto attended = [&](Side& side, std::size_t row, std::size_t n_rows) {
        const auto rows = static_cast<std::int64_t>(n_rows);
        const Partial partial = side.partial(rows, shape);
        const auto at = static_cast<std::ptrdiff_t>(row) * width;
        side.backend->attend_from(side.rows({q.begin() + at, q.begin() + at + rows * width}, width),
                                  {side.rows(k, kv_width).data, side.rows(v, kv_width).data, n},
                                  std::span(first).subspan(row, n_rows), shape, partial);
        const Rows out = side.empty(rows, width);
        side.backend->finish(partial, shape, out);
        return side.get(out);
      };
      expect_same(kAttention, [&](Side& side) { return attended(side, 0, 6); });
      const Floats all = attended(*gpu_, 0, 6);
      for (std::size_t row = 0; row < 6; ++row) {  // a row's bits know nothing of the others
        const auto at = static_cast<std::ptrdiff_t>(row) * width;
        EXPECT_EQ(attended(*gpu_, row, 1), Floats(all.begin() + at, all.begin() + at + width));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, CudaWindows, ::testing::Values("", "sm80"));

TEST_F(CudaBackend, MergesSinks) {
  const AttentionShape shape{6, 2, 64};
  const Floats q = numbers_.bell(5 * 384, 2), k = numbers_.bell(90 * 128),
               v = numbers_.bell(90 * 128);
  const WeightView sinks = weight({-1, 3, 0.5, 90, -90, 0}, 6);
  for (const bool is_empty : {false, true}) {
    expect_same(is_empty ? 0 : kAttention, [&](Side& side) {
      const Partial partial = side.partial(5, shape);
      const KvSegment keys{side.rows(k, 128).data, side.rows(v, 128).data, 90};
      if (!is_empty)
        side.backend->attend(side.rows(q, 384), {&keys, 1}, shape, Product::chunk, partial);
      side.backend->merge_sinks(partial, sinks, shape);
      const Rows out = side.empty(5, 384);
      side.backend->finish(partial, shape, out);
      return side.get(out);
    });
  }
}

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
      side.backend->attend_alone(q_rows, {&context, 1}, shape, Product::batch_invariant, partial);
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

// Merges that the kernel of own tokens does by itself give the bits of merges before it.
TEST_F(CudaBackend, MergesTheContextWhereItAttendsToOwnTokens) {
  for (const std::int64_t head_dim : {64, 128}) {
    const AttentionShape shape{6, 2, head_dim};
    const std::int64_t kv_width = shape.n_kv_heads * head_dim, n_rows = 3, n_before = 40;
    const Floats q = numbers_.bell(n_rows * shape.n_heads * head_dim);
    const Floats k = numbers_.bell(n_rows * kv_width), v = numbers_.bell(n_rows * kv_width);
    const Floats kept = numbers_.bell((n_before + n_rows) * kv_width);
    const Floats blocks = numbers_.bell(4 * 50 * kv_width);
    const auto outputs = [&](bool at_once) {
      Side& side = *gpu_;
      const Rows own_k = side.rows(kept, kv_width), own_v = side.rows(kept, kv_width);
      std::vector<OwnTokens> own;
      for (std::int64_t i = 0; i < n_rows; ++i)
        own.push_back({own_k.data, own_v.data, n_before + i, i});
      const Rows q_rows = side.rows(q, shape.n_heads * head_dim), kv = side.rows(blocks, kv_width);
      PartialTree tree{{}, {{0, 1}, {2, 3}, {2, 0}}, 2};
      for (std::int64_t i = 0; i < 4; ++i) {
        const std::byte* block = kv.data + static_cast<std::size_t>(i * 50 * kv_width) * 2;
        const KvSegment segment{block, block, 50, false};
        tree.parts.push_back(side.partial(n_rows, shape));
        side.backend->attend_alone(q_rows, {&segment, 1}, shape, Product::batch_invariant,
                                   tree.parts.back());
      }
      const Rows k_rows = side.rows(k, kv_width), v_rows = side.rows(v, kv_width);
      const Rows out = side.empty(n_rows, q_rows.width);
      if (at_once) {
        side.backend->attend_own(q_rows, k_rows, v_rows, own, shape, tree, out);
      } else {
        const Partial merged = side.backend->merge_tree(tree, shape);
        side.backend->attend_own(q_rows, k_rows, v_rows, own, shape, merged, out);
      }
      return side.get(out);
    };
    EXPECT_EQ(outputs(true), outputs(false));
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

}  // namespace
}  // namespace starattn
