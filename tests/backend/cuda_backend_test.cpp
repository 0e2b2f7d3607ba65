// SPDX-License-Identifier: Apache-2.0
// What a decoder layer does beside its attention.
#include <cstring>

#include "base/error.h"
#include "both_sides.h"

namespace starattn {
namespace {

TEST_F(CudaBackend, Embeds) {
  const WeightView table = weight(numbers_.bell(50 * 384), 384);
  const std::vector<Token> tokens{3, 0, 49, 3};
  expect_same(0, [&](Side& side) {
    const Rows x = side.empty(4, 384);
    side.backend->embed_tokens(tokens, table, x);
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

TEST_F(CudaBackend, ScalesRowsByAGateWhateverIsBesideThem) {
  for (const auto& [width, by_width] : {std::pair{56, 48}, {1408, 4096}, {5632, 2048}}) {
    const WeightView gate = weight(numbers_.bell(by_width, 0.05F), by_width);
    constexpr std::int64_t kRows = 9;
    const Floats values = numbers_.bell(kRows * width), by = numbers_.bell(kRows * by_width);
    expect_same(kOneRounding, [&](Side& side) {
      const Rows x = side.rows(values, width);
      side.backend->scale_by_gate(x, side.rows(by, by_width), gate);
      return side.get(x);
    });
    const Rows all = gpu_->rows(values, width), of_all = gpu_->rows(by, by_width);
    gpu_->backend->scale_by_gate(all, of_all, gate);
    const Rows alone = gpu_->rows(values, width);
    for (std::int64_t row = 0; row < kRows; ++row) {
      const auto at = [&](const Rows& rows) {
        return Rows{rows.data + row * rows.width * 2, 1, rows.width};
      };
      gpu_->backend->scale_by_gate(at(alone), at(of_all), gate);
    }
    EXPECT_EQ(gpu_->get(alone), gpu_->get(all));
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
    for (const Product product : {Product::chunk, Product::batch_invariant}) {
      const double when_added = product == Product::chunk ? kTwoRoundings : kOneRounding;
      SCOPED_TRACE(::testing::Message()
                   << s.n_rows << " x " << s.n_in << " x " << s.n_out
                   << (product == Product::batch_invariant ? ", thin" : ", chunk"));
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

TEST_F(CudaBackend, FindsTheFirstValueThatIsNotFinite) {
  const std::int64_t n_rows = 3000, n_cols = 1016;
  Floats values = numbers_.bell(n_rows * n_cols);
  EXPECT_EQ(gpu_->backend->first_not_finite(weight(values, n_cols), 0, n_rows), -1);
  values.back() = INFINITY;
  values[static_cast<std::size_t>(7 * n_cols + 3)] = std::nanf("");
  const WeightView bad = weight(values, n_cols);
  EXPECT_EQ(gpu_->backend->first_not_finite(bad, 0, n_rows), 7 * n_cols + 3);
  EXPECT_EQ(gpu_->backend->first_not_finite(bad, 7, 1), 7 * n_cols + 3);
  EXPECT_EQ(gpu_->backend->first_not_finite(bad, 8, n_rows - 9), -1);
  EXPECT_EQ(gpu_->backend->first_not_finite(bad, 8, n_rows - 8), n_rows * n_cols - 1);
  Floats few = {1, 2, 3, INFINITY, 5};
  WeightView exact{reinterpret_cast<const std::byte*>(few.data()), Dtype::f32, 1, 5};
  exact.is_exact = true;
  gpu_->backend->load(exact);
  EXPECT_EQ(gpu_->backend->first_not_finite(exact, 0, 1), 3);
  few[3] = 4;
  EXPECT_EQ(gpu_->backend->first_not_finite(exact, 0, 1), -1);

  const std::int64_t nowhere = INT64_MAX;
  auto* place = reinterpret_cast<std::int64_t*>(gpu_->keep(std::as_bytes(std::span(&nowhere, 1))));
  const auto found = [&] {
    std::int64_t at = 0;
    gpu_->backend->download(reinterpret_cast<const std::byte*>(place),
                            std::as_writable_bytes(std::span(&at, 1)));
    return at;
  };
  gpu_->backend->find_not_finite(gpu_->rows(numbers_.bell(n_rows * n_cols), n_cols), 0, place);
  EXPECT_EQ(found(), nowhere);
  const Rows rows = gpu_->rows(values, n_cols);
  gpu_->backend->find_not_finite(rows, 0, place);
  EXPECT_EQ(found(), 7 * n_cols + 3);
  // Any number of values at any address.
  const Rows odd{rows.data + (7 * n_cols + 1) * 2, 1, 3};
  gpu_->backend->find_not_finite(odd, 0, place);
  EXPECT_EQ(found(), 2);
}

TEST_F(CudaBackend, ARowBeyondTheRangeOfItsNormBecomesNaN) {
  for (const std::int64_t width : {128, 4096, 16384}) {
    Floats values = numbers_.bell(3 * width);
    values[static_cast<std::size_t>(width) + 5] = 1e20F;
    const Rows x = gpu_->rows(values, width), y = gpu_->empty(3, width);
    gpu_->backend->rms_norm(x, weight(Floats(static_cast<std::size_t>(width), 1), width), 1e-5, y);
    const Floats normed = gpu_->get(y);
    for (std::size_t i = 0; i < normed.size(); ++i)
      EXPECT_EQ(std::isnan(normed[i]), i / static_cast<std::size_t>(width) == 1) << i;
  }
}

TEST_F(CudaBackend, LoadTellsTheBytesThatItRead) {
  const std::int64_t n = std::int64_t{40} << 20;  // beyond one staging buffer
  const WeightView w = weight(numbers_.bell(n), 1 << 20);
  std::vector<std::byte> read;
  gpu_->backend->load(w, [&](std::span<const std::byte> bytes) {
    read.insert(read.end(), bytes.begin(), bytes.end());
  });
  ASSERT_EQ(read.size(), w.n_bytes());
  EXPECT_EQ(std::memcmp(read.data(), w.data, read.size()), 0);
}

// A few bytes go by a kernel, more by the copy engine.
TEST_F(CudaBackend, BytesOfAnySizeComeBackAsTheyWent) {
  Backend& backend = *gpu_->backend;
  for (const std::size_t n : {1, 3, 4, 511, 512, 513, 3071, 3072, 3073, 100'000}) {
    std::vector<std::byte> there(n + 8, std::byte{7});
    for (std::size_t i = 0; i < n; ++i) there[i] = static_cast<std::byte>(i * 31 + n);
    const Buffer device = backend.allocate(n + 8), pinned = backend.allocate_pinned(n + 8);
    std::fill_n(pinned.data(), n + 8, std::byte{7});
    backend.upload_later(std::span(there).first(n), device.data());
    backend.download_later(device.data(), {pinned.data(), n});
    backend.await(backend.mark());
    EXPECT_TRUE(std::equal(there.begin(), there.end(), pinned.data())) << n;  // and no byte more
  }
}

// As a graph, which the next time takes over: with other arguments, and with other operations.
TEST_F(CudaBackend, RepeatedOperationsGiveWhatTheyGiveOnce) {
  const AttentionShape shape{8, 2, 64};
  const std::int64_t width = shape.n_heads * shape.head_dim;
  const std::int64_t kv_width = shape.n_kv_heads * shape.head_dim;
  Backend& gpu = *gpu_->backend;
  const WeightView w = weight(numbers_.bell(width * width), width);
  const WeightView norm = weight(numbers_.bell(width), width);
  const Rows k = gpu_->rows(numbers_.bell(700 * kv_width), kv_width);
  const Rows v = gpu_->rows(numbers_.bell(700 * kv_width), kv_width);
  const std::unique_ptr<Repeated> repeated = gpu.make_repeated();
  for (int round = 0; round < 12; ++round) {
    const std::int64_t n_rows = round < 6 ? 1 + round / 2 : 24 - round;
    const Floats values = numbers_.bell(n_rows * width);
    const std::vector<float> angles(static_cast<std::size_t>(n_rows * shape.head_dim / 2), 0.1F);
    const auto layer = [&](Rows x, Rows out) {
      gpu.rms_norm(x, norm, 1e-5, out, Reader::product);
      gpu.add_linear(x, out, w, {}, Product::batch_invariant, {});
      const Buffer there = gpu.allocate(std::span(angles).size_bytes());
      gpu.upload_later(std::as_bytes(std::span(angles)), there.data());
      const auto* cos = reinterpret_cast<const float*>(there.data());
      gpu.rope(x, {shape.head_dim}, cos, cos);
      const KvSegment blocks[] = {{k.data, v.data, 100 + 50 * round}, {k.data, v.data, 300}};
      const Buffer memory = gpu.allocate(PartialBuffer::n_bytes(n_rows, shape));
      const Partial partial =
          PartialBuffer::over(memory.data(), n_rows, shape.n_heads, shape.head_dim);
      const std::size_t n_blocks = round % 4 == 3 ? 1 : 2;
      gpu.attend_alone(x, std::span(blocks).first(n_blocks), shape, Product::batch_invariant,
                       partial);
      gpu.finish(partial, shape, out);
    };
    const Rows once = gpu_->rows(values, width), again = gpu_->rows(values, width);
    const Rows out_once = gpu_->empty(n_rows, width), out_again = gpu_->empty(n_rows, width);
    layer(once, out_once);
    repeated->run([&] { layer(again, out_again); });
    EXPECT_EQ(gpu_->get(again), gpu_->get(once)) << round;
    EXPECT_EQ(gpu_->get(out_again), gpu_->get(out_once)) << round;
  }
  EXPECT_THROW(repeated->run([&] { throw Error(Exit::unfit, "in the middle"); }), Error);
  const Rows x = gpu_->rows(numbers_.bell(width), width),
             y = gpu_->rows(numbers_.bell(width), width);
  const Floats sum_before = gpu_->get(x);
  repeated->run([&] { gpu.add(x, y); });
  EXPECT_NE(gpu_->get(x), sum_before) << "the device goes on";
}

TEST_F(CudaBackend, HostMemoryOfADocumentServesTheNext) {
  constexpr std::size_t kBytes = std::size_t{80} << 20;
  Backend& gpu = *gpu_->backend;
  const auto address_of_freed = [&](std::size_t n_bytes) {
    return gpu.allocate_pinned(n_bytes).data();
  };
  const std::byte* const first = address_of_freed(kBytes);
  Buffer host = gpu.allocate_pinned(kBytes);
  EXPECT_EQ(host.data(), first) << "it waited for one of its size";
  EXPECT_NE(address_of_freed(kBytes), first) << "nothing is lent twice";
  host.data()[kBytes - 1] = std::byte{7};
  const Buffer device = gpu.allocate(kBytes);
  gpu.copy_after_operations(CopyDirection::to_device, {host.data(), kBytes}, device.data());
  gpu.order_after_copies(CopyDirection::to_device);
  std::byte last{};
  gpu.download(device.data() + kBytes - 1, {&last, 1});
  EXPECT_EQ(last, std::byte{7}) << "and the copy engines reach it";
  address_of_freed(2 * kBytes);  // gives up all that waits; `host` is not among it
  EXPECT_EQ(host.data()[kBytes - 1], std::byte{7});
}

TEST_F(CudaBackend, ThinProductsTreatRowsOneByOne) {
  constexpr std::int64_t kRows = 77;
  for (const auto& [n_in, n_out] : {std::pair{4096, 1000}, {384, 7000}}) {
    const WeightView w = weight(numbers_.bell(std::int64_t{n_out} * n_in), n_in);
    const Floats values = numbers_.bell(kRows * n_in);
    Floats all(static_cast<std::size_t>(kRows * n_out));
    gpu_->backend->linear_to_host(gpu_->rows(values, n_in), w, all);
    for (const std::int64_t n : {1, 8, 9, 16, 17, 32, 33, 40, 64, 65}) {
      const std::int64_t first = kRows - n;
      const Floats some(values.begin() + first * n_in, values.end());
      Floats part(static_cast<std::size_t>(n * n_out));
      gpu_->backend->linear_to_host(gpu_->rows(some, n_in), w, part);
      EXPECT_EQ(0, std::memcmp(part.data(), all.data() + first * n_out, part.size() * 4))
          << n << " rows of " << n_in << " numbers";
    }
  }
}

// The same of three products at once, and of a gated pair, whose outputs fill no tile.
TEST_F(CudaBackend, ThinProductsBesideEachOtherTreatRowsOneByOne) {
  for (const auto& [n_in, n_out] : {std::pair{128, 40}, {256, 1000}, {4096, 200}, {14336, 72}}) {
    std::vector<WeightView> w, bias;
    for (const int width : {n_out, 64, n_out + 8}) {
      w.push_back(weight(numbers_.bell(std::int64_t{width} * n_in, 0.1F), n_in));
      bias.push_back(weight(numbers_.bell(width), width));
    }
    const WeightView up = weight(numbers_.bell(std::int64_t{n_out} * n_in, 0.1F), n_in);
    const auto results_of = [&](const Rows& x) {
      std::vector<Floats> rows(static_cast<std::size_t>(x.n_rows));
      const auto add = [&](const Rows& y) {
        const Floats all = gpu_->get(y);
        for (std::size_t i = 0; i < rows.size(); ++i)
          rows[i].insert(rows[i].end(), all.begin() + static_cast<std::int64_t>(i) * y.width,
                         all.begin() + static_cast<std::int64_t>(i + 1) * y.width);
      };
      std::vector<Projection> three;
      for (std::size_t i = 0; i < w.size(); ++i)
        three.push_back({w[i], bias[i], gpu_->empty(x.n_rows, w[i].n_rows)});
      gpu_->backend->linear_all(x, three, Product::batch_invariant);
      for (const Projection& to : three) add(to.y);
      const Rows gated = gpu_->empty(x.n_rows, n_out);
      gpu_->backend->linear_gated(x, {w[0], bias[0], gated}, {up, {}, gpu_->empty(x.n_rows, n_out)},
                                  Product::batch_invariant);
      add(gated);
      return rows;
    };
    const std::int64_t n_rows = 70;
    const Floats values = numbers_.bell(n_rows * n_in);
    std::vector<Floats> expected;
    for (std::int64_t row = 0; row < n_rows; ++row)
      expected.push_back(results_of(
          gpu_->rows({values.begin() + row * n_in, values.begin() + (row + 1) * n_in}, n_in))[0]);
    for (const std::int64_t n : {8, 9, 16, 17, 31, 32, 33, 64, 70}) {
      const std::vector<Floats> together =
          results_of(gpu_->rows({values.begin(), values.begin() + n * n_in}, n_in));
      for (std::size_t i = 0; i < together.size(); ++i)
        EXPECT_EQ(together[i], expected[i]) << n_in << " " << n << " " << i;
    }
  }
}

// What a product normalises by itself has the bits of rows that lay ready, and lies ready for
// others.
TEST_F(CudaBackend, ProductsTakeTheNormOfTheirRows) {
  const std::int64_t n_out = 200;
  for (const std::int64_t width : {264, 520, 4096, 8192}) {
    const WeightView scale = weight(numbers_.bell(width), width);
    const WeightView w = weight(numbers_.bell(n_out * width), width);
    const WeightView v = weight(numbers_.bell(n_out * width), width);
    for (const std::int64_t n_rows : {1, 2, 3, 8, 9, 33}) {
      const Rows x = gpu_->rows(numbers_.bell(n_rows * width), width);
      const auto rows_of = [&](Reader reader) {
        const Rows normed = gpu_->empty(n_rows, width);
        const Rows y = gpu_->empty(n_rows, n_out), z = gpu_->empty(n_rows, n_out);
        gpu_->backend->rms_norm(x, scale, 1e-5, normed, reader);
        const Projection both[] = {{w, {}, y}, {v, {}, z}};
        gpu_->backend->linear_all(normed, both, Product::batch_invariant);
        Floats all = gpu_->get(y);
        for (const Rows& others : {z, normed}) {
          const Floats more = gpu_->get(others);
          all.insert(all.end(), more.begin(), more.end());
        }
        return all;
      };
      EXPECT_EQ(rows_of(Reader::product), rows_of(Reader::any)) << width << " " << n_rows;
    }
  }
}

TEST_F(CudaBackend, RotatesHeads) {
  for (const HeadSplit& head : {HeadSplit{16}, {64}, {128}, {128, 96}, {64, 16}}) {
    const std::int64_t n_rows = 19, width = 6 * head.size;
    const Floats values = numbers_.bell(n_rows * width);
    const Floats cos = numbers_.bell(n_rows * head.size / 2),
                 sin = numbers_.bell(n_rows * head.size / 2);
    expect_same(kOneRounding, [&](Side& side) {
      const Rows x = side.rows(values, width);
      side.backend->rope(x, head,
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
        q_rows, k_rows, {head_dim},
        reinterpret_cast<const float*>(side.keep(std::as_bytes(std::span(cos)))),
        reinterpret_cast<const float*>(side.keep(std::as_bytes(std::span(sin)))));
    Floats both = side.get(q_rows);
    const Floats keys = side.get(k_rows);
    both.insert(both.end(), keys.begin(), keys.end());
    return both;
  });
}

TEST_F(CudaBackend, GatesAProduct) {
  const std::int64_t n_in = 520, n_out = 200;
  const WeightView gate = weight(numbers_.bell(n_out * n_in, 0.1F), n_in);
  const WeightView up = weight(numbers_.bell(n_out * n_in, 0.1F), n_in);
  const WeightView bias = weight(numbers_.bell(n_out), n_out);
  for (const std::int64_t n_rows : {1, 9, 32, 40}) {
    const Floats x = numbers_.bell(n_rows * n_in);
    for (const Product product : {Product::batch_invariant, Product::chunk}) {
      expect_same(kTwoRoundings, [&](Side& side) {
        const Rows y = side.empty(n_rows, n_out);
        side.backend->linear_gated(side.rows(x, n_in), {gate, bias, y},
                                   {up, bias, side.empty(n_rows, n_out)}, product);
        return side.get(y);
      });
    }
  }
}

// Blocks that a thin product takes as they are, and the last ones, which are widened as they load.
TEST_F(CudaBackend, Fp8WeightsAreMultipliedByTheirScales) {
  constexpr std::int64_t kIn = 528, kOut = 200;
  Floats scales;
  for (const float scale : numbers_.bell(kIn * 8)) scales.push_back(0.01F + std::abs(scale));
  const WeightScales all[] = {{scales.data(), 64, 128, 0},
                              {scales.data(), 64, 256, 70},
                              {scales.data(), 1, kIn, 3},
                              {scales.data(), kOut, kIn, 0},
                              {scales.data(), 64, 96, 70}};
  std::list<std::vector<std::uint8_t>> memory;
  const auto matrix = [&](const WeightScales& of) {
    std::vector<std::uint8_t>& bits = memory.emplace_back();
    for (const float value : numbers_.bell(kIn * kOut, 60)) {
      const auto byte = static_cast<std::uint8_t>(static_cast<int>(value) & 0xff);
      bits.push_back((byte & 0x7f) == 0x7f ? 0x38 : byte);
    }
    return WeightView{reinterpret_cast<const std::byte*>(bits.data()), Dtype::f8, kOut, kIn, of};
  };
  for (const WeightScales& of : all) {
    SCOPED_TRACE(of.block_cols);
    const WeightView w = matrix(of), other = matrix(of);
    const WeightView bias = weight(numbers_.bell(kOut), kOut);
    for (const std::int64_t n_rows : {1, 5, 13, 70}) {
      const Floats x = numbers_.bell(n_rows * kIn, 0.01F), y = numbers_.bell(n_rows * kOut);
      for (const Product product : {Product::chunk, Product::batch_invariant}) {
        expect_same(kTwoRoundings, [&](Side& side) {
          const Rows to = side.empty(n_rows, kOut);
          side.backend->linear(side.rows(x, kIn), {w, bias, to}, product);
          return side.get(to);
        });
        expect_same(kTwoRoundings, [&](Side& side) {
          const Rows to = side.rows(y, kOut);
          side.backend->add_linear(to, side.rows(x, kIn), w, {}, product, side.empty(n_rows, kOut));
          return side.get(to);
        });
        expect_same(2 * kTwoRoundings, [&](Side& side) {
          const Rows gate = side.empty(n_rows, kOut);
          side.backend->linear_gated(side.rows(x, kIn), {w, {}, gate},
                                     {other, {}, side.empty(n_rows, kOut)}, product);
          return side.get(gate);
        });
      }
      expect_same(kTwoRoundings, [&](Side& side) {  // some rows of the matrix
        Floats logits(static_cast<std::size_t>(n_rows * 99));
        side.backend->linear_to_host(side.rows(x, kIn), w.rows(37, 99), logits);
        return logits;
      });
    }
    // A row is treated alike whatever is beside it.
    const Floats x = numbers_.bell(70 * kIn, 0.01F);
    const auto products_of = [&](std::int64_t first, std::int64_t n) {
      const Floats some(x.begin() + first * kIn, x.begin() + (first + n) * kIn);
      Floats y(static_cast<std::size_t>(n * kOut));
      gpu_->backend->linear_to_host(gpu_->rows(some, kIn), w, y);
      return y;
    };
    const Floats whole = products_of(0, 70);
    for (const auto& [first, n] : {std::pair{0, 1}, {33, 1}, {40, 30}, {69, 1}}) {
      const Floats some = products_of(first, n);
      EXPECT_TRUE(std::equal(some.begin(), some.end(), whole.begin() + first * kOut)) << first;
    }
  }
}

TEST_F(CudaBackend, AddsScalesAndGates) {
  const Floats a = numbers_.bell(13 * 1000, 4), b = numbers_.bell(13 * 1000, 4);
  expect_same(kOneRounding, [&](Side& side) {
    const Rows x = side.rows(a, 1000);
    side.backend->add(x, side.rows(b, 1000));
    return side.get(x);
  });
  expect_same(kOneRounding, [&](Side& side) {
    const Rows x = side.rows(a, 1000);
    side.backend->scale(x, 0.3F);
    return side.get(x);
  });
  expect_same(kOneRounding, [&](Side& side) {
    const Rows x = side.rows(a, 1000);
    side.backend->swiglu(x, side.rows(b, 1000), x);
    return side.get(x);
  });
}

TEST_F(CudaBackend, RefusesAModelThatNoKernelTakes) {
  ModelConfig config;
  config.hidden_size = 768;
  config.intermediate_size = 2048;
  config.n_heads = 8;
  config.n_kv_heads = 2;
  config.head_dim = 64;
  EXPECT_NO_THROW(gpu_->backend->check_model(config.shape()));
  config.head_dim = 96;
  EXPECT_THROW(gpu_->backend->check_model(config.shape()), Error);
  config.head_dim = 64;
  config.intermediate_size = 2044;
  EXPECT_THROW(gpu_->backend->check_model(config.shape()), Error);
  config.intermediate_size = 2048;
  config.rope.rotary = 48;
  EXPECT_NO_THROW(gpu_->backend->check_model(config.shape()));
  config.rope.rotary = 40;
  EXPECT_THROW(gpu_->backend->check_model(config.shape()), Error);
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
