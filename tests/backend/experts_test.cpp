// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts on the CPU backend against double precision: the choice with its ties, the
// sum of the experts, and that a row's bits do not depend on the rows beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <list>
#include <random>

#include "backend/backend.h"

namespace starattn {
namespace {

using Floats = std::vector<float>;

constexpr std::int64_t kHidden = 48;
constexpr std::int64_t kSize = 40;  // of an expert
constexpr std::int64_t kExperts = 7;
constexpr std::int64_t kChosen = 3;

Rows rows_of(Floats& values, std::int64_t width) {
  return {reinterpret_cast<std::byte*>(values.data()),
          static_cast<std::int64_t>(values.size()) / width, width};
}

// A choice with host memory, which is the CPU backend's own.
struct Choice {
  explicit Choice(std::int64_t n_rows, std::int64_t n_chosen = kChosen)
      : experts(static_cast<std::size_t>(n_rows * n_chosen), -1),
        shares(experts.size(), NAN),
        view{experts.data(), shares.data(), n_rows, n_chosen} {}
  std::vector<std::int32_t> experts;
  Floats shares;
  ExpertChoice view;
};

class Experts : public ::testing::Test {
 protected:
  Experts() {
    for (std::int64_t e = 0; e < kExperts; ++e)
      experts_.push_back({matrix(kSize, kHidden), matrix(kSize, kHidden), matrix(kHidden, kSize)});
  }

  Floats numbers(std::int64_t n, float deviation = 1) {
    std::normal_distribution<float> normal(0, deviation);
    Floats values(static_cast<std::size_t>(n));
    for (float& value : values) value = normal(generator_);
    return values;
  }
  WeightView view_of(const Floats& values, std::int64_t n_rows, std::int64_t n_cols) {
    return {reinterpret_cast<const std::byte*>(values.data()), Dtype::f32, n_rows, n_cols};
  }
  WeightView matrix(std::int64_t n_rows, std::int64_t n_cols) {
    return view_of(memory_.emplace_back(numbers(n_rows * n_cols, 0.2F)), n_rows, n_cols);
  }
  WeightView vector(std::int64_t n) { return view_of(memory_.emplace_back(numbers(n)), 1, n); }
  static double at(const WeightView& vector, std::int64_t i) {
    return vector ? double{reinterpret_cast<const float*>(vector.data)[i]} : 0;
  }
  static double dot(const float* x, const WeightView& w, std::int64_t row) {
    const float* weights = reinterpret_cast<const float*>(w.data) + row * w.n_cols;
    double sum = 0;
    for (std::int64_t i = 0; i < w.n_cols; ++i) sum += double{x[i]} * double{weights[i]};
    return sum;
  }

  std::mt19937 generator_{11};
  std::list<Floats> memory_;
  std::vector<Expert> experts_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(2);
};

TEST_F(Experts, AreTheLikeliestWithTheirShares) {
  constexpr std::int64_t kRows = 21;
  Floats x = numbers(kRows * kHidden);
  const WeightView router = matrix(kExperts, kHidden);
  for (const Product product : {Product::chunk, Product::batch_invariant}) {
    for (const bool renormalise : {false, true}) {
      Choice choice(kRows);
      backend_->choose_experts(rows_of(x, kHidden), {router, {}, {}, {.renormalise = renormalise}},
                               product, choice.view);
      for (std::int64_t row = 0; row < kRows; ++row) {
        std::vector<std::pair<double, std::int32_t>> likeliest;
        double sum = 0;
        for (std::int32_t e = 0; e < kExperts; ++e) {
          likeliest.push_back({-std::exp(dot(x.data() + row * kHidden, router, e)), e});
          sum -= likeliest.back().first;
        }
        std::sort(likeliest.begin(), likeliest.end());
        likeliest.resize(kChosen);
        if (renormalise) {
          sum = 0;
          for (const auto& [minus, e] : likeliest) sum -= minus;
        }
        std::sort(likeliest.begin(), likeliest.end(),
                  [](const auto& a, const auto& b) { return a.second < b.second; });
        for (std::int64_t i = 0; i < kChosen; ++i) {
          const auto at = static_cast<std::size_t>(row * kChosen + i);
          EXPECT_EQ(choice.experts[at], likeliest[static_cast<std::size_t>(i)].second);
          EXPECT_NEAR(choice.shares[at], -likeliest[static_cast<std::size_t>(i)].first / sum, 1e-6);
        }
      }
    }
  }
}

TEST_F(Experts, OfEqualsAreTheLowerOnes) {
  Floats x(kHidden, 0.0F);
  x[0] = 1;
  Floats weights(kExperts * kHidden, 0.0F);
  weights[5 * kHidden] = 1;  // expert 5 leads, all others tie
  Choice choice(1);
  backend_->choose_experts(rows_of(x, kHidden),
                           {view_of(weights, kExperts, kHidden), {}, {}, {.renormalise = true}},
                           Product::batch_invariant, choice.view);
  EXPECT_EQ(choice.experts, (std::vector<std::int32_t>{0, 1, 5}));
  x[0] = NAN;  // the row is lost, but whom it asks is not
  backend_->choose_experts(rows_of(x, kHidden),
                           {view_of(weights, kExperts, kHidden), {}, {}, {.renormalise = true}},
                           Product::batch_invariant, choice.view);
  EXPECT_EQ(choice.experts, (std::vector<std::int32_t>{0, 1, 2}));
  EXPECT_TRUE(std::isnan(choice.shares[0]));
}

TEST_F(Experts, OfARouterWithABiasAreTheLikeliestWithIt) {
  Floats x = numbers(3 * kHidden);
  const WeightView router = matrix(kExperts, kHidden);
  Floats bias(kExperts, 0.0F);
  bias[1] = bias[3] = bias[6] = 100;
  Choice choice(3);
  backend_->choose_experts(rows_of(x, kHidden),
                           {router, view_of(bias, 1, kExperts), {}, {.renormalise = true}},
                           Product::batch_invariant, choice.view);
  for (std::size_t row = 0; row < 3; ++row)
    EXPECT_EQ(std::vector(choice.experts.begin() + static_cast<std::ptrdiff_t>(row) * kChosen,
                          choice.experts.begin() + static_cast<std::ptrdiff_t>(row + 1) * kChosen),
              (std::vector<std::int32_t>{1, 3, 6}));
  const double e1 = std::exp(dot(x.data(), router, 1)), e3 = std::exp(dot(x.data(), router, 3)),
               e6 = std::exp(dot(x.data(), router, 6));
  EXPECT_NEAR(choice.shares[1], e3 / (e1 + e3 + e6), 1e-5);
}

// By the corrected ones; how much is by what they are.
TEST_F(Experts, AreThoseOfTheLargestCorrectedSigmoids) {
  constexpr std::int64_t kRows = 21;
  Floats x = numbers(kRows * kHidden);
  const WeightView router = matrix(kExperts, kHidden);
  Floats offsets(kExperts, 7.0F);
  offsets[4] = 9;      // always
  offsets[2] = -1.5F;  // never
  const WeightView correction = view_of(offsets, 1, kExperts);
  for (const Routing& routing : {Routing{.is_sigmoid = true},
                                 Routing{.is_sigmoid = true, .renormalise = true, .scale = 2.5F}}) {
    for (const WeightView& added : {correction, WeightView{}}) {
      Choice choice(kRows);
      backend_->choose_experts(rows_of(x, kHidden), {router, {}, added, routing},
                               Product::batch_invariant, choice.view);
      for (std::int64_t row = 0; row < kRows; ++row) {
        std::vector<std::pair<double, std::int32_t>> best;
        std::vector<double> sigmoids;
        for (std::int32_t e = 0; e < kExperts; ++e) {
          sigmoids.push_back(1 / (1 + std::exp(-dot(x.data() + row * kHidden, router, e))));
          best.push_back({-sigmoids.back() - at(added, e), e});
        }
        std::sort(best.begin(), best.end());
        best.resize(kChosen);
        std::sort(best.begin(), best.end(),
                  [](const auto& a, const auto& b) { return a.second < b.second; });
        double sum = 0;
        for (const auto& [minus, e] : best) sum += sigmoids[static_cast<std::size_t>(e)];
        for (std::int64_t i = 0; i < kChosen; ++i) {
          const auto place = static_cast<std::size_t>(row * kChosen + i);
          const auto e = best[static_cast<std::size_t>(i)].second;
          EXPECT_EQ(choice.experts[place], e);
          EXPECT_NEAR(choice.shares[place],
                      sigmoids[static_cast<std::size_t>(e)] *
                          (routing.renormalise ? routing.scale / sum : 1),
                      1e-6);
        }
      }
    }
  }
}

// As they are, and with biases and a gate that is held within limits, which some numbers reach.
TEST_F(Experts, AreAddedWithTheirShares) {
  for (const GatedUnit unit : {GatedUnit{}, GatedUnit{1.702F, 1, 1.5F}}) {
    if (!unit.is_swiglu()) {
      for (Expert& expert : experts_) {
        expert.gate_bias = vector(kSize);
        expert.up_bias = vector(kSize);
        expert.down_bias = vector(kHidden);
      }
    }
    constexpr std::int64_t kRows = 21;
    Floats normed = numbers(kRows * kHidden);
    const Floats before = numbers(kRows * kHidden);
    Choice choice(kRows);
    for (std::int64_t row = 0; row < kRows; ++row) {
      std::int32_t ascending[] = {0, 2, 4};  // expert 1 and others go without a row
      if (row % 3 == 0) ascending[2] = 6;
      std::copy_n(ascending, kChosen, choice.experts.begin() + row * kChosen);
    }
    choice.shares = numbers(kRows * kChosen);
    choice.view.shares = choice.shares.data();
    for (const Product product : {Product::chunk, Product::batch_invariant}) {
      Floats x = before;
      backend_->add_experts(rows_of(x, kHidden), rows_of(normed, kHidden), experts_, unit,
                            choice.view, product);
      for (std::int64_t row = 0; row < kRows; ++row) {
        std::vector<double> expected(before.begin() + row * kHidden,
                                     before.begin() + (row + 1) * kHidden);
        for (std::int64_t i = 0; i < kChosen; ++i) {
          const auto place = static_cast<std::size_t>(row * kChosen + i);
          const Expert& expert = experts_[static_cast<std::size_t>(choice.experts[place])];
          Floats inner(kSize);
          for (std::int64_t j = 0; j < kSize; ++j) {
            const double limit = unit.limit;
            const double gate = std::min(
                dot(normed.data() + row * kHidden, expert.gate_proj, j) + at(expert.gate_bias, j),
                limit);
            const double up = std::clamp(
                dot(normed.data() + row * kHidden, expert.up_proj, j) + at(expert.up_bias, j),
                -limit, limit);
            inner[static_cast<std::size_t>(j)] = static_cast<float>(
                gate / (1 + std::exp(-double{unit.slope} * gate)) * (up + double{unit.shift}));
          }
          for (std::int64_t c = 0; c < kHidden; ++c)
            expected[static_cast<std::size_t>(c)] +=
                double{choice.shares[place]} *
                (dot(inner.data(), expert.down_proj, c) + at(expert.down_bias, c));
        }
        for (std::int64_t c = 0; c < kHidden; ++c)
          EXPECT_NEAR(x[static_cast<std::size_t>(row * kHidden + c)],
                      expected[static_cast<std::size_t>(c)], 1e-5);
      }
    }
  }
}

// Columns of every expert: each has the bits that it has among all.
TEST_F(Experts, HaveColumnsOfTheSameBits) {
  constexpr std::int64_t kRows = 21, kPlaces = kRows * kChosen;
  for (Expert& expert : experts_) {
    expert.gate_bias = vector(kSize);
    expert.up_bias = vector(kSize);
    expert.down_bias = vector(kHidden);
  }
  const GatedUnit unit{1.702F, 1, 1.5F};
  const auto product = Product::batch_invariant;
  Floats normed = numbers(kRows * kHidden);
  const Floats before = numbers(kRows * kHidden);
  Choice choice(kRows);
  backend_->choose_experts(rows_of(normed, kHidden),
                           {matrix(kExperts, kHidden), {}, {}, {.renormalise = true}}, product,
                           choice.view);
  Floats whole = before;
  backend_->add_experts(rows_of(whole, kHidden), rows_of(normed, kHidden), experts_, unit,
                        choice.view, product);

  Floats all(kPlaces * kSize);
  for (const Share& share : {Share{0, 16}, Share{16, 24}}) {
    std::vector<Expert> part;
    for (const Expert& e : experts_)
      part.push_back({e.gate_proj.rows(share.first, share.count),
                      e.up_proj.rows(share.first, share.count), e.down_proj,
                      e.gate_bias.values(share.first, share.count),
                      e.up_bias.values(share.first, share.count), e.down_bias});
    Floats gated(static_cast<std::size_t>(kPlaces * share.count));
    backend_->gate_experts(rows_of(normed, kHidden), part, unit, choice.view, product,
                           rows_of(gated, share.count));
    for (std::int64_t place = 0; place < kPlaces; ++place)
      std::copy_n(gated.begin() + place * share.count, share.count,
                  all.begin() + place * kSize + share.first);
  }
  for (const Share& share : {Share{0, 32}, Share{32, 16}}) {
    std::vector<Expert> part = experts_;
    for (Expert& e : part) {
      e.down_proj = e.down_proj.rows(share.first, share.count);
      e.down_bias = e.down_bias.values(share.first, share.count);
    }
    Floats x;
    for (std::int64_t row = 0; row < kRows; ++row)
      for (std::int64_t c = share.first; c < share.end(); ++c)
        x.push_back(before[static_cast<std::size_t>(row * kHidden + c)]);
    backend_->add_gated_experts(rows_of(x, share.count), rows_of(all, kSize), part, choice.view,
                                product);
    for (std::int64_t row = 0; row < kRows; ++row)
      EXPECT_EQ(
          std::memcmp(x.data() + row * share.count, whole.data() + row * kHidden + share.first,
                      static_cast<std::size_t>(share.count) * sizeof(float)),
          0);
  }
}

TEST_F(Experts, TreatARowAlikeWhateverIsBesideIt) {
  constexpr std::int64_t kRows = 37;
  Floats normed = numbers(kRows * kHidden);
  const Floats before = numbers(kRows * kHidden);
  const WeightView router = matrix(kExperts, kHidden);
  const auto run = [&](std::int64_t first, std::int64_t n) {
    Floats in(normed.begin() + first * kHidden, normed.begin() + (first + n) * kHidden);
    Floats x(before.begin() + first * kHidden, before.begin() + (first + n) * kHidden);
    Choice choice(n);
    backend_->choose_experts(rows_of(in, kHidden), {router, {}, {}, {.renormalise = true}},
                             Product::batch_invariant, choice.view);
    backend_->add_experts(rows_of(x, kHidden), rows_of(in, kHidden), experts_, {}, choice.view,
                          Product::batch_invariant);
    return x;
  };
  const Floats all = run(0, kRows);
  for (std::int64_t row = 0; row < kRows; ++row) {
    const Floats alone = run(row, 1);
    EXPECT_EQ(std::memcmp(alone.data(), all.data() + row * kHidden, kHidden * sizeof(float)), 0)
        << row;
  }
}

}  // namespace
}  // namespace starattn
