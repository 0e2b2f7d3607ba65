// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts on the GPU against the CPU's, in both ways of multiplying, and a row's bits
// whatever is beside it.
#include <algorithm>
#include <span>

#include "both_sides.h"

namespace starattn {
namespace {

struct MixtureShape {
  std::int64_t n_rows, hidden, size, n_experts, n_chosen;
};
// Rows of no, one and many tiles an expert; widths that fill neither a stage nor a tile.
constexpr MixtureShape kShapes[] = {{1, 48, 40, 7, 3},       {5, 64, 24, 2, 2},
                                    {37, 2048, 768, 128, 8}, {700, 264, 136, 5, 2},
                                    {1500, 512, 96, 33, 4},  {300, 64, 8, 1, 1}};

class CudaExperts : public CudaBackend {
 protected:
  // The same choice in the memory of one side, from numbers of the host.
  static ExpertChoice choice_on(Side& side, const std::vector<std::int32_t>& experts,
                                const Floats& shares, std::int64_t n_chosen) {
    return {reinterpret_cast<std::int32_t*>(side.keep(std::as_bytes(std::span(experts)))),
            reinterpret_cast<float*>(side.keep(std::as_bytes(std::span(shares)))),
            std::ssize(experts) / n_chosen, n_chosen};
  }
  std::vector<std::int32_t> random_experts(const MixtureShape& shape) {
    std::vector<std::int32_t> experts;
    for (std::int64_t row = 0; row < shape.n_rows; ++row) {
      const Floats order = numbers_.bell(shape.n_experts);
      std::vector<std::int32_t> all;
      for (std::int32_t e = 0; e < shape.n_experts; ++e) all.push_back(e);
      std::sort(all.begin(), all.end(), [&](auto a, auto b) {
        return order[static_cast<std::size_t>(a)] < order[static_cast<std::size_t>(b)];
      });
      all.resize(static_cast<std::size_t>(shape.n_chosen));
      std::sort(all.begin(), all.end());
      experts.insert(experts.end(), all.begin(), all.end());
    }
    return experts;
  }
  // block: of FP8 matrices, [block, block]; 0: bf16.
  std::vector<Expert> random_matrices(const MixtureShape& shape, std::int64_t block = 0) {
    std::vector<Expert> experts;
    const auto matrix = [&](std::int64_t n_rows, std::int64_t n_cols) {
      if (block > 0) return f8_matrix(n_rows, n_cols, block);
      const float deviation = 1 / std::sqrt(static_cast<float>(n_cols));
      return weight(numbers_.bell(n_rows * n_cols, deviation), n_cols);
    };
    for (std::int64_t e = 0; e < shape.n_experts; ++e)
      experts.push_back({matrix(shape.size, shape.hidden), matrix(shape.size, shape.hidden),
                         matrix(shape.hidden, shape.size)});
    return experts;
  }

  void expect_added_alike(std::span<const MixtureShape> shapes, std::int64_t block, double bound,
                          const GatedUnit& unit = {}) {
    for (const MixtureShape& shape : shapes) {
      SCOPED_TRACE(shape.n_rows);
      std::vector<Expert> experts = random_matrices(shape, block);
      for (Expert& expert : experts) {
        if (unit.is_swiglu()) continue;
        expert.gate_bias = weight(numbers_.bell(shape.size), shape.size);
        expert.up_bias = weight(numbers_.bell(shape.size), shape.size);
        expert.down_bias = weight(numbers_.bell(shape.hidden), shape.hidden);
      }
      const std::vector<std::int32_t> chosen = random_experts(shape);
      Floats shares;
      for (const float share : numbers_.bell(std::ssize(chosen))) shares.push_back(std::abs(share));
      const Floats x = numbers_.bell(shape.n_rows * shape.hidden);
      const Floats normed = numbers_.bell(shape.n_rows * shape.hidden);
      for (const Product product : {Product::chunk, Product::batch_invariant}) {
        expect_same(bound, [&](Side& side) {
          const Rows sum = side.rows(x, shape.hidden);
          side.backend->add_experts(sum, side.rows(normed, shape.hidden), experts, unit,
                                    choice_on(side, chosen, shares, shape.n_chosen), product);
          return side.get(sum);
        });
      }
    }
  }

 private:
  // Bell-shaped as the others.
  WeightView f8_matrix(std::int64_t n_rows, std::int64_t n_cols, std::int64_t block) {
    const std::int64_t n_across = (n_cols + block - 1) / block;
    Floats& scales = scales_.emplace_back();
    for (const float number : numbers_.bell((n_rows + block - 1) / block * n_across))
      scales.push_back((0.5F + std::abs(number)) * 1e-3F);
    std::vector<std::uint8_t>& values = f8_values_.emplace_back();
    const Floats numbers =
        numbers_.bell(n_rows * n_cols, 1 / std::sqrt(static_cast<float>(n_cols)));
    for (std::int64_t i = 0; i < n_rows * n_cols; ++i) {
      const std::int64_t at = i / n_cols / block * n_across + i % n_cols / block;
      values.push_back(
          f32_to_f8(numbers[static_cast<std::size_t>(i)] / scales[static_cast<std::size_t>(at)]));
    }
    return {reinterpret_cast<const std::byte*>(values.data()),
            Dtype::f8,
            n_rows,
            n_cols,
            {scales.data(), block, block}};
  }

  std::list<std::vector<std::uint8_t>> f8_values_;
  std::list<Floats> scales_;
};

TEST_F(CudaExperts, WithBiasesAndAGateWithinLimitsAreAddedAlike) {
  expect_added_alike(kShapes, 0, 2e-2, {1.702F, 1, 1.5F});
}

TEST_F(CudaExperts, AreChosenAlike) {
  for (const MixtureShape& shape : kShapes) {
    const WeightView router =
        weight(numbers_.bell(shape.n_experts * shape.hidden, 0.1F), shape.hidden);
    const Floats x = numbers_.bell(shape.n_rows * shape.hidden);
    Floats logits(static_cast<std::size_t>(shape.n_rows * shape.n_experts));
    cpu_->backend->linear_to_host(cpu_->rows(x, shape.hidden), router, logits);
    for (const Product product : {Product::chunk, Product::batch_invariant}) {
      for (const Routing& routing :
           {Routing{}, Routing{.renormalise = true}, Routing{.is_sigmoid = true, .scale = 2.5F},
            Routing{.is_sigmoid = true, .renormalise = true}}) {
        const auto n = static_cast<std::size_t>(shape.n_rows * shape.n_chosen);
        std::vector<std::int32_t> chosen[2];
        Floats shares[2];
        for (Side* side : {cpu_.get(), gpu_.get()}) {
          const std::size_t i = side == cpu_.get() ? 0 : 1;
          const ExpertChoice choice =
              choice_on(*side, std::vector<std::int32_t>(n, -1), Floats(n, NAN), shape.n_chosen);
          side->backend->choose_experts(side->rows(x, shape.hidden), {router, {}, {}, routing},
                                        product, choice);
          chosen[i].resize(n);
          side->backend->download(reinterpret_cast<const std::byte*>(choice.experts),
                                  std::as_writable_bytes(std::span(chosen[i])));
          shares[i] = side->get(choice.shares, static_cast<std::int64_t>(n));
        }
        for (std::int64_t row = 0; row < shape.n_rows; ++row) {
          // Sums in another order may choose otherwise where two logits are all but equal.
          Floats sorted(logits.begin() + row * shape.n_experts,
                        logits.begin() + (row + 1) * shape.n_experts);
          std::sort(sorted.rbegin(), sorted.rend());
          const auto last = static_cast<std::size_t>(shape.n_chosen);
          if (last < sorted.size() && sorted[last - 1] - sorted[last] < 1e-4F) continue;
          for (auto at = static_cast<std::size_t>(row * shape.n_chosen);
               at < static_cast<std::size_t>((row + 1) * shape.n_chosen); ++at) {
            EXPECT_EQ(chosen[1][at], chosen[0][at]) << row;
            EXPECT_NEAR(shares[1][at], shares[0][at], 1e-4) << row;
          }
        }
      }
    }
  }
}

// Corrections that bf16 could not tell apart.
TEST_F(CudaExperts, AreChosenByTheCorrectionInFp32) {
  std::list<Floats> all_offsets;  // tensors are known by their addresses
  for (const std::int64_t n_experts : {24, 100, 160, 300}) {
    constexpr std::int64_t kHidden = 64, kChosen = 5;
    const WeightView router =
        weight(Floats(static_cast<std::size_t>(n_experts * kHidden), 0), kHidden);
    std::vector<std::int32_t> order;
    for (std::int32_t e = 0; e < n_experts; ++e)
      order.push_back((e * 7 + 3) % static_cast<std::int32_t>(n_experts));
    Floats& offsets = all_offsets.emplace_back(static_cast<std::size_t>(n_experts));
    for (std::size_t i = 0; i < order.size(); ++i)
      offsets[static_cast<std::size_t>(order[i])] = 8 - 1e-3F * static_cast<float>(i);
    WeightView correction{reinterpret_cast<const std::byte*>(offsets.data()), Dtype::f32, 1,
                          n_experts};
    correction.is_exact = true;
    std::vector<std::int32_t> best(order.begin(), order.begin() + kChosen);
    std::sort(best.begin(), best.end());
    for (const std::int64_t n_rows : {1, 9, 70}) {
      for (const Product product : {Product::chunk, Product::batch_invariant}) {
        const auto n = static_cast<std::size_t>(n_rows * kChosen);
        const ExpertChoice choice =
            choice_on(*gpu_, std::vector<std::int32_t>(n, -1), Floats(n, 0.0F), kChosen);
        gpu_->backend->choose_experts(gpu_->rows(numbers_.bell(n_rows * kHidden), kHidden),
                                      {router, {}, correction, {.is_sigmoid = true}}, product,
                                      choice);
        std::vector<std::int32_t> chosen(n);
        gpu_->backend->download(reinterpret_cast<const std::byte*>(choice.experts),
                                std::as_writable_bytes(std::span(chosen)));
        for (std::size_t i = 0; i < n; ++i)
          EXPECT_EQ(chosen[i], best[i % kChosen]) << n_experts << " " << n_rows;
        EXPECT_EQ(gpu_->get(choice.shares, static_cast<std::int64_t>(n)), Floats(n, 0.5F));
      }
    }
  }
}

TEST_F(CudaExperts, OfEqualsAreTheLowerOnes) {
  constexpr std::int64_t kExperts = 77, kHidden = 64;
  Floats weights(kExperts * kHidden, 0.0F);
  weights[50 * kHidden] = 1;  // expert 50 leads, all others tie
  const WeightView router = weight(weights, kHidden);
  Floats x(2 * kHidden, 0.0F);
  x[0] = 1;
  std::fill(x.begin() + kHidden, x.end(), NAN);  // whom the second row asks is known all the same
  for (const Product product : {Product::chunk, Product::batch_invariant}) {
    const ExpertChoice choice =
        choice_on(*gpu_, std::vector<std::int32_t>(6, -1), Floats(6, 0.0F), 3);
    gpu_->backend->choose_experts(gpu_->rows(x, kHidden), {router, {}, {}, {.renormalise = true}},
                                  product, choice);
    std::vector<std::int32_t> chosen(6);
    gpu_->backend->download(reinterpret_cast<const std::byte*>(choice.experts),
                            std::as_writable_bytes(std::span(chosen)));
    EXPECT_EQ(chosen, (std::vector<std::int32_t>{0, 1, 50, 0, 1, 2}));
    EXPECT_TRUE(std::isnan(gpu_->get(choice.shares, 6)[3]));
  }
}

TEST_F(CudaExperts, AreAddedAlike) {
  // Of what is between the products, of what an expert makes, and of the sum.
  constexpr double kThreeRoundings = 3 * kOneRounding;
  expect_added_alike(kShapes, 0, kThreeRoundings);
}

// Blocks that products of few rows take as they are, and those that they do not. Sums of few terms
// do not average roundings to bf16 out: of each matrix as it is widened, of gate, up, their
// product, what an expert makes and the sum there are eight.
TEST_F(CudaExperts, OfFp8AreAddedAlike) {
  constexpr MixtureShape kF8Shapes[] = {
      {1, 48, 40, 7, 3}, {5, 64, 32, 2, 2}, {40, 512, 384, 9, 3}, {300, 64, 16, 1, 1}};
  for (const std::int64_t block : {128, 48, 4096}) {
    SCOPED_TRACE(block);
    expect_added_alike(kF8Shapes, block, 8.0 / 512);
  }
}

// Many rows widen a layer's experts together; another layer's come after them, and the first again.
TEST_F(CudaExperts, OfTwoLayersAreNotMixedUp) {
  const MixtureShape shape{40, 128, 256, 6, 2};
  const std::vector<Expert> layers[] = {random_matrices(shape, 128), random_matrices(shape, 128)};
  const std::vector<std::int32_t> chosen = random_experts(shape);
  const Floats shares(chosen.size(), 0.5F);
  const Floats x = numbers_.bell(shape.n_rows * shape.hidden);
  expect_same(kTwoRoundings, [&](Side& side) {
    Floats all;
    for (const int layer : {0, 1, 1, 0}) {
      const Rows sum = side.rows(x, shape.hidden);
      side.backend->add_experts(sum, side.rows(x, shape.hidden), layers[layer], {},
                                choice_on(side, chosen, shares, shape.n_chosen), Product::chunk);
      const Floats one = side.get(sum);
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  });
}

// Where a layer's matrices lie the device is told when the layer is first at work. A kernel that
// looked there too early would find other numbers: the device is kept busy, so that all of these
// are in its queue together.
TEST_F(CudaExperts, OfLayersAreFoundTheFirstTime) {
  const MixtureShape shape{1, 512, 384, 16, 4};
  constexpr std::int64_t kLong = 2048;
  const WeightView other = weight(numbers_.bell(kLong * kLong), kLong);
  const Rows others = gpu_->empty(2 * kLong, kLong), made_of_others = gpu_->empty(2 * kLong, kLong);
  gpu_->backend->load(other);
  const WeightView router = weight(numbers_.bell(shape.n_experts * shape.hidden), shape.hidden);
  const Floats x = numbers_.bell(shape.hidden);
  for (const std::int64_t block : {0, 128}) {
    std::vector<std::vector<Expert>> layers;
    for (int i = 0; i < 8; ++i) layers.push_back(random_matrices(shape, block));
    for (const std::vector<Expert>& experts : layers)
      for (const Expert& expert : experts)
        for (const WeightView& matrix : {expert.gate_proj, expert.up_proj, expert.down_proj})
          gpu_->backend->load(matrix);
    gpu_->backend->load(router);
    {
      const std::vector<std::byte> garbage(static_cast<std::size_t>(shape.n_experts) * 8,
                                           std::byte{0xee});
      std::vector<Buffer> freed;
      for (int i = 0; i < 64; ++i) {
        freed.push_back(gpu_->backend->allocate(garbage.size()));
        gpu_->backend->upload(garbage, freed.back().data());
      }
    }
    const auto run = [&] {
      const Rows sum = gpu_->rows(x, shape.hidden);
      const Rows normed = gpu_->rows(x, shape.hidden);
      const ExpertChoice choice = choice_on(*gpu_, {0, 0, 0, 0}, Floats(4), shape.n_chosen);
      for (int i = 0; i < 100; ++i)
        gpu_->backend->linear(others, {other, {}, made_of_others}, Product::chunk);
      for (const std::vector<Expert>& experts : layers) {
        gpu_->backend->choose_experts(normed, {router, {}, {}, {.renormalise = true}},
                                      Product::batch_invariant, choice);
        gpu_->backend->add_experts(sum, normed, experts, {}, choice, Product::batch_invariant);
      }
      return gpu_->get(sum);
    };
    const Floats first = run();
    EXPECT_EQ(run(), first);
  }
}

// Columns of every expert, also where they begin within a block of scales.
TEST_F(CudaExperts, HaveColumnsOfTheSameBits) {
  const MixtureShape shape{37, 512, 384, 16, 4};
  const auto product = Product::batch_invariant;
  for (const std::int64_t block : {0, 128, 48}) {
    SCOPED_TRACE(block);
    const std::vector<Expert> experts = random_matrices(shape, block);
    const std::vector<std::int32_t> chosen = random_experts(shape);
    const ExpertChoice choice =
        choice_on(*gpu_, chosen, Floats(chosen.size(), 0.25F), shape.n_chosen);
    const std::int64_t n_places = shape.n_rows * shape.n_chosen;
    const Floats x = numbers_.bell(shape.n_rows * shape.hidden);
    const Rows normed = gpu_->rows(x, shape.hidden);
    const Rows whole = gpu_->rows(x, shape.hidden);
    gpu_->backend->add_experts(whole, normed, experts, {}, choice, product);
    const Floats expected = gpu_->get(whole);

    Floats all(static_cast<std::size_t>(n_places * shape.size));
    for (const Share& share : {Share{0, 144}, Share{144, 240}}) {
      std::vector<Expert> part;
      for (const Expert& e : experts)
        part.push_back({e.gate_proj.rows(share.first, share.count),
                        e.up_proj.rows(share.first, share.count), e.down_proj});
      const Rows gated = gpu_->empty(n_places, share.count);
      gpu_->backend->gate_experts(normed, part, {}, choice, product, gated);
      const Floats values = gpu_->get(gated);
      for (std::int64_t place = 0; place < n_places; ++place)
        std::copy_n(values.begin() + place * share.count, share.count,
                    all.begin() + place * shape.size + share.first);
    }
    for (const Share& share : {Share{0, 208}, Share{208, 304}}) {
      std::vector<Expert> part = experts;
      for (Expert& e : part) e.down_proj = e.down_proj.rows(share.first, share.count);
      Floats mine;
      for (std::int64_t row = 0; row < shape.n_rows; ++row)
        mine.insert(mine.end(), x.begin() + row * shape.hidden + share.first,
                    x.begin() + row * shape.hidden + share.end());
      const Rows sum = gpu_->rows(mine, share.count);
      gpu_->backend->add_gated_experts(sum, gpu_->rows(all, shape.size), part, choice, product);
      const Floats got = gpu_->get(sum);
      for (std::int64_t row = 0; row < shape.n_rows; ++row)
        EXPECT_TRUE(std::equal(got.begin() + row * share.count,
                               got.begin() + (row + 1) * share.count,
                               expected.begin() + row * shape.hidden + share.first));
    }
  }
}

// Places of one block and of more, of experts that one block chooses among and of more.
TEST_F(CudaExperts, AreAddedAlikeWhereTheirOrderWasNoted) {
  constexpr MixtureShape kOrdered[] = {
      {1, 64, 48, 128, 8}, {64, 64, 48, 128, 8}, {65, 64, 48, 128, 8}, {40, 64, 48, 300, 2},
      {5, 64, 48, 160, 4}, {1, 64, 48, 160, 4},  {3, 64, 48, 5, 5},    {2000, 64, 48, 20, 3}};
  for (const MixtureShape& shape : kOrdered) {
    SCOPED_TRACE(shape.n_rows);
    const std::int64_t block = &shape - kOrdered < 4 ? 0 : 128;  // of FP8
    const std::vector<Expert> experts = random_matrices(shape, block);
    const WeightView router = weight(numbers_.bell(shape.n_experts * shape.hidden), shape.hidden);
    const Floats x = numbers_.bell(shape.n_rows * shape.hidden);
    const Rows normed = gpu_->rows(x, shape.hidden);
    const std::int64_t n_places = shape.n_rows * shape.n_chosen;
    const auto n = static_cast<std::size_t>(n_places);
    for (const Product product : {Product::chunk, Product::batch_invariant}) {
      const auto run = [&](bool in_halves, std::int32_t* order) {
        ExpertChoice choice =
            choice_on(*gpu_, std::vector<std::int32_t>(n), Floats(n), shape.n_chosen);
        choice.order = order;
        gpu_->backend->choose_experts(normed, {router, {}, {}, {.renormalise = true}}, product,
                                      choice);
        const Rows sum = gpu_->rows(x, shape.hidden);
        if (in_halves) {
          const Rows gated = gpu_->empty(n_places, shape.size);
          gpu_->backend->gate_experts(normed, experts, {}, choice, product, gated);
          gpu_->backend->add_gated_experts(sum, gated, experts, choice, product);
        } else {
          gpu_->backend->add_experts(sum, normed, experts, {}, choice, product);
        }
        return gpu_->get(sum);
      };
      const std::vector<std::int32_t> nonsense(
          static_cast<std::size_t>(ExpertChoice::order_size(n_places)), -7);
      auto* const order =
          reinterpret_cast<std::int32_t*>(gpu_->keep(std::as_bytes(std::span(nonsense))));
      const Floats expected = run(false, nullptr);
      EXPECT_EQ(run(false, order), expected);
      EXPECT_EQ(run(true, order), expected);
      EXPECT_EQ(run(true, nullptr), expected);
    }
  }
}

TEST_F(CudaExperts, TreatARowAlikeWhateverIsBesideIt) {
  // So many rows that a warp has whole matrix rows, which of a row alone are shared by two; the
  // last run of columns is not whole.
  const MixtureShape shape{150, 528, 400, 64, 4};
  const std::vector<Expert> layers[] = {random_matrices(shape), random_matrices(shape, 128)};
  const WeightView router = weight(numbers_.bell(shape.n_experts * shape.hidden), shape.hidden);
  const Floats x = numbers_.bell(shape.n_rows * shape.hidden);
  const auto run = [&](const std::vector<Expert>& experts, std::int64_t first, std::int64_t n) {
    const Floats some(x.begin() + first * shape.hidden, x.begin() + (first + n) * shape.hidden);
    const auto n_places = static_cast<std::size_t>(n * shape.n_chosen);
    const ExpertChoice choice =
        choice_on(*gpu_, std::vector<std::int32_t>(n_places), Floats(n_places), shape.n_chosen);
    const Rows sum = gpu_->rows(some, shape.hidden);
    const Rows normed = gpu_->rows(some, shape.hidden);
    gpu_->backend->choose_experts(normed, {router, {}, {}, {.renormalise = true}},
                                  Product::batch_invariant, choice);
    gpu_->backend->add_experts(sum, normed, experts, {}, choice, Product::batch_invariant);
    return gpu_->get(sum);
  };
  for (const std::vector<Expert>& experts : layers) {
    const Floats all = run(experts, 0, shape.n_rows);
    for (const auto& [first, n] : {std::pair{0, 1}, {7, 1}, {50, 9}, {64, 36}, {99, 1}}) {
      const Floats some = run(experts, first, n);
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first * shape.hidden))
          << first;
    }
  }
}

}  // namespace
}  // namespace starattn
