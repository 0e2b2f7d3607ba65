// SPDX-License-Identifier: Apache-2.0
// Keys and values in FP8 on the GPU: made as on the CPU, byte by byte, and attended to with the
// bits of the same numbers in bf16.
#include <cstdlib>

#include "both_sides.h"

namespace starattn {
namespace {

struct Case {
  const char* kernels;  // STARATTN_KERNELS
  AttentionShape shape;
  std::int64_t n_rows;
  std::vector<std::int64_t> blocks;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  out << c.kernels << " " << c.shape.n_heads << "/" << c.shape.n_kv_heads << " heads of "
      << c.shape.head_dim << ", " << c.n_rows << " rows,";
  for (const std::int64_t n : c.blocks) out << " " << n;
  return out;
}

class CudaF8Kv : public CudaBackend, public ::testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    CudaBackend::SetUp();
    if (IsSkipped()) return;
    ::setenv("STARATTN_KERNELS", c_.kernels, 1);
    q_ = numbers_.bell(c_.n_rows * c_.shape.n_heads * c_.shape.head_dim, 2);
    for (const std::int64_t n : c_.blocks) {
      k_.push_back(uneven(n));
      v_.push_back(uneven(n));
    }
  }
  void TearDown() override { ::unsetenv("STARATTN_KERNELS"); }

  std::int64_t width() const { return c_.shape.n_kv_heads * c_.shape.head_dim; }
  KvLayout layout() const { return {Dtype::f8, c_.shape.n_kv_heads, c_.shape.head_dim}; }

  // Rows whose heads differ in size, with a head of zeros among them.
  Floats uneven(std::int64_t n) {
    Floats values = numbers_.bell(n * width());
    const Floats sizes = numbers_.bell(n * c_.shape.n_kv_heads, 3);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = bf16_of(values[i] * sizes[i / static_cast<std::size_t>(c_.shape.head_dim)]);
    std::fill_n(values.begin() + n / 2 * width(), c_.shape.head_dim, 0.0F);
    return values;
  }
  RawRows narrow(Side& side, const Floats& values) {
    const std::int64_t n = std::ssize(values) / width();
    const std::vector<std::byte> poison(static_cast<std::size_t>(n) * layout().row_bytes(),
                                        std::byte{0xa5});
    const RawRows to{side.keep(poison), n, layout().row_bytes()};
    side.backend->narrow(side.rows(values, width()), c_.shape.head_dim, to);
    return to;
  }
  // The numbers that FP8 rows stand for.
  Floats widened(const Floats& values) const {
    const auto d = static_cast<std::size_t>(c_.shape.head_dim);
    Floats wide(values.size());
    std::vector<std::uint8_t> codes(d);
    for (std::size_t at = 0; at < values.size(); at += d) {
      const float scale = f8_scale(to_f8(values.data() + at, c_.shape.head_dim, codes.data()));
      for (std::size_t i = 0; i < d; ++i) wide[at + i] = f8_to_f32(codes[i]) * scale;
    }
    return wide;
  }
  std::vector<KvSegment> f8_blocks(Side& side) {
    std::vector<KvSegment> all;
    for (std::size_t i = 0; i < k_.size(); ++i)
      all.push_back({narrow(side, k_[i]).data, narrow(side, v_[i]).data, c_.blocks[i], false,
                     /*is_f8=*/true});
    return all;
  }
  // The same, whose exponents lie once more by themselves; among what no attention may read: scales
  // that would be infinite.
  std::vector<KvSegment> with_exponents(std::vector<KvSegment> blocks) {
    for (KvSegment& block : blocks) {
      const std::size_t n_bytes = gpu_->backend->exponent_bytes(block.n_tokens, c_.shape);
      if (n_bytes == 0) continue;
      std::byte* to = gpu_->keep(std::vector<std::byte>(n_bytes, std::byte{135}));
      gpu_->backend->lay_out_exponents(block, c_.shape, to);
      block.exponents = to;
    }
    return blocks;
  }
  std::vector<KvSegment> wide_blocks(Side& side) {
    std::vector<KvSegment> all;
    for (std::size_t i = 0; i < k_.size(); ++i)
      all.push_back({side.rows(widened(k_[i]), width()).data,
                     side.rows(widened(v_[i]), width()).data, c_.blocks[i]});
    return all;
  }
  Rows q_rows(Side& side) { return side.rows(q_, c_.shape.n_heads * c_.shape.head_dim); }
  Floats numbers_of(const Partial& partial) {
    const std::int64_t n = partial.n_rows * c_.shape.n_heads;
    Floats all = gpu_->get(partial.o, n * c_.shape.head_dim);
    for (const float* values : {partial.m, partial.l}) {
      const Floats some = gpu_->get(values, n);
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

  const Case& c_ = GetParam();
  Floats q_;
  std::vector<Floats> k_, v_;
};

TEST_P(CudaF8Kv, IsMadeAsOnTheCpu) {
  for (const Floats& values : k_) {
    std::vector<std::byte> bytes[2];
    for (Side* side : {cpu_.get(), gpu_.get()}) {
      const RawRows rows = narrow(*side, values);
      auto& there = bytes[side == gpu_.get()];
      there.resize(static_cast<std::size_t>(rows.n_rows) * rows.row_bytes);
      side->backend->download(rows.data, there);
    }
    EXPECT_EQ(bytes[0], bytes[1]);
  }
}

TEST_P(CudaF8Kv, IsAttendedToAsOnTheCpu) {
  const std::int64_t n_all = c_.blocks.back();
  for (const Product product : {Product::chunk, Product::batch_invariant}) {
    expect_same(kAttention, [&](Side& side) {
      std::vector<KvSegment> segments = f8_blocks(side);
      segments.back().causal = product == Product::chunk && n_all >= c_.n_rows;
      const Rows out = side.empty(c_.n_rows, c_.shape.n_heads * c_.shape.head_dim);
      side.backend->attend_all(q_rows(side), segments, c_.shape, product,
                               side.partial(c_.n_rows, c_.shape), out);
      return side.get(out);
    });
  }
}

TEST_P(CudaF8Kv, BlocksHaveTheBitsOfBf16) {
  const auto attend = [&](const std::vector<KvSegment>& blocks, bool merges_all) {
    std::vector<Partial> parts;
    for (std::size_t i = 0; i < blocks.size(); ++i)
      parts.push_back(gpu_->partial(c_.n_rows, c_.shape));
    std::vector<Merge> merges;
    for (int i = 1; merges_all && i < static_cast<int>(blocks.size()); ++i)
      merges.push_back({0, i});
    gpu_->backend->attend_blocks(q_rows(*gpu_), blocks, c_.shape, merges, parts);
    std::vector<Floats> all;
    for (std::size_t i = 0; i < (merges_all ? 1 : parts.size()); ++i)
      all.push_back(numbers_of(parts[i]));
    return all;
  };
  for (const bool merges_all : {false, true}) {
    const auto bf16 = attend(wide_blocks(*gpu_), merges_all);
    EXPECT_EQ(attend(f8_blocks(*gpu_), merges_all), bf16);
    EXPECT_EQ(attend(with_exponents(f8_blocks(*gpu_)), merges_all), bf16);
  }
  // The same again: nothing depends on which thread comes first.
  EXPECT_EQ(attend(f8_blocks(*gpu_), true), attend(f8_blocks(*gpu_), true));
}

TEST_P(CudaF8Kv, IsRecalledWithTheBitsOfBf16) {
  const std::int64_t n_asking = std::min<std::int64_t>(c_.n_rows, c_.blocks[0]);
  const auto scores_of = [&](const std::vector<KvSegment>& blocks) {
    Backend& backend = *gpu_->backend;
    const Buffer rows = backend.allocate(static_cast<std::size_t>(n_asking) * 4);
    const auto n_z = static_cast<std::size_t>(c_.n_rows * c_.shape.n_heads);
    const Buffer z = backend.allocate(n_z * 4);
    const Buffer scores = backend.allocate(static_cast<std::size_t>(c_.blocks[0]) * 4);
    auto* z_values = reinterpret_cast<float*>(z.data());
    auto* numbers = reinterpret_cast<std::int32_t*>(rows.data());
    backend.choose_asking_rows(blocks[0], c_.shape, n_asking, numbers);
    backend.log_sum_exp(q_rows(*gpu_), blocks.back(), blocks[0], c_.shape, z_values);
    backend.score_keys(q_rows(*gpu_), z_values, blocks[0], c_.shape,
                       reinterpret_cast<float*>(scores.data()));
    Floats all = gpu_->get(reinterpret_cast<const float*>(scores.data()), c_.blocks[0]);
    for (const Buffer* buffer : {&rows, &z}) {
      std::vector<std::byte> bytes(buffer == &rows ? static_cast<std::size_t>(n_asking) * 4
                                                   : n_z * 4);
      backend.download(buffer->data(), bytes);
      for (const std::byte byte : bytes) all.push_back(static_cast<float>(byte));
    }
    return all;
  };
  EXPECT_EQ(scores_of(f8_blocks(*gpu_)), scores_of(wide_blocks(*gpu_)));
}

// Few rows and many, one head and more than 16, blocks of one key, of part of a tile and of many
// splits.
INSTANTIATE_TEST_SUITE_P(Shapes, CudaF8Kv,
                         ::testing::Values(Case{"", {6, 2, 64}, 1, {1}},
                                           Case{"", {8, 1, 128}, 3, {1000, 77, 128}},
                                           Case{"", {32, 8, 128}, 1, {33000, 4000, 100, 1}},
                                           Case{"", {32, 8, 128}, 4, {5000, 9000}},
                                           Case{"", {32, 8, 128}, 32, {8000, 4111}},
                                           Case{"", {32, 4, 128}, 16, {20000}},
                                           Case{"", {20, 20, 64}, 70, {3000, 500}},
                                           Case{"", {40, 20, 128}, 33, {2000, 600, 1}},
                                           Case{"sm80", {6, 2, 64}, 5, {300, 20}},
                                           Case{"sm80", {8, 2, 128}, 40, {700, 1000}}));

TEST_F(CudaBackend, Fp8KeepsWhatIsNotFinite) {
  Floats values = numbers_.bell(4 * 128);
  values[3] = NAN;
  values[128] = INFINITY;
  values[300] = -INFINITY;
  const KvLayout layout{Dtype::f8, 1, 128};
  std::vector<std::uint8_t> there(4 * layout.row_bytes());
  const RawRows to{gpu_->keep(std::as_bytes(std::span(there))), 4, layout.row_bytes()};
  gpu_->backend->narrow(gpu_->rows(values, 128), 128, to);
  gpu_->backend->download(to.data, std::as_writable_bytes(std::span(there)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint8_t code = there[i / 128 * layout.row_bytes() + i % 128];
    EXPECT_EQ((code & 0x7f) == 0x7f, !std::isfinite(values[i])) << i;
  }
}

}  // namespace
}  // namespace starattn
