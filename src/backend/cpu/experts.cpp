// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/experts.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/linear.h"
#include "backend/cpu/recall.h"
#include "base/error.h"

namespace starattn::cpu {
namespace {

float* row_of(Rows x, std::int64_t row) {
  return reinterpret_cast<float*>(x.data) + row * x.width;
}

// The places of a choice, [n_rows, n_chosen], sorted by expert and within one by row.
struct Sorted {
  std::vector<std::int64_t> places;
  std::vector<std::int64_t> first;  // [n_experts + 1]: where an expert's begin among them

  // Of rows in this order, those of one expert.
  Rows rows_of(std::size_t expert, Rows sorted) const {
    return {reinterpret_cast<std::byte*>(row_of(sorted, first[expert])),
            first[expert + 1] - first[expert], sorted.width};
  }
};

Sorted sort_by_expert(const ExpertChoice& choice, std::size_t n_experts) {
  const std::int64_t n_places = choice.n_rows * choice.n_chosen;
  Sorted sorted{std::vector<std::int64_t>(static_cast<std::size_t>(n_places)),
                std::vector<std::int64_t>(n_experts + 1)};
  for (std::int64_t i = 0; i < n_places; ++i) {
    STARATTN_CHECK(choice.experts[i] >= 0 &&
                   static_cast<std::size_t>(choice.experts[i]) < n_experts);
    ++sorted.first[static_cast<std::size_t>(choice.experts[i]) + 1];
  }
  for (std::size_t e = 0; e < n_experts; ++e) sorted.first[e + 1] += sorted.first[e];
  std::vector<std::int64_t> next = sorted.first;
  for (std::int64_t i = 0; i < n_places; ++i) {
    std::int64_t& to = next[static_cast<std::size_t>(choice.experts[i])];
    sorted.places[static_cast<std::size_t>(to++)] = i;
  }
  return sorted;
}

Rows rows_over(std::vector<float>& memory, std::int64_t n_rows, std::int64_t width) {
  memory.resize(static_cast<std::size_t>(n_rows * width));
  return {reinterpret_cast<std::byte*>(memory.data()), n_rows, width};
}

// Into gate. NaN stays NaN.
void apply(const GatedUnit& unit, float* gate, const float* up, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = gate[i] > unit.limit ? unit.limit : gate[i];
    const float u = up[i] > unit.limit ? unit.limit : up[i] < -unit.limit ? -unit.limit : up[i];
    gate[i] = g / (1.0F + std::exp(-unit.slope * g)) * (u + unit.shift);
  }
}

// Of one row's shares, as the scores of those that it takes.
void finish_shares(const Routing& routing, std::span<float> shares) {
  float sum = 0;
  for (const float share : shares) sum += share;
  if (routing.is_sigmoid) sum += 1e-20F;  // they may all be 0
  for (float& share : shares) share = (routing.renormalise ? share / sum : share) * routing.scale;
}

}  // namespace

void choose_by_softmax(ThreadPool& pool, const float* products, std::int64_t n_experts,
                       const Routing& routing, const ExpertChoice& choice) {
  const auto n_chosen = static_cast<std::size_t>(choice.n_chosen);
  pool.parallel_for(choice.n_rows, [&](std::int64_t row, int) {
    const float* mine = products + row * n_experts;
    const std::span shares(choice.shares + row * choice.n_chosen, n_chosen);
    choose_best(mine, n_experts, choice.n_chosen, choice.experts + row * choice.n_chosen,
                shares.data());
    const float top = *std::max_element(mine, mine + n_experts);
    float sum = 0;
    for (std::int64_t e = 0; e < n_experts; ++e) sum += std::exp(mine[e] - top);
    for (float& share : shares) share = std::exp(share - top) / sum;
    finish_shares(routing, shares);
  });
}

void choose_by_sigmoid(ThreadPool& pool, const float* products, std::span<const float> correction,
                       const Routing& routing, const ExpertChoice& choice) {
  const std::size_t n_experts = correction.size();
  const auto n_chosen = static_cast<std::size_t>(choice.n_chosen);
  pool.parallel_for(choice.n_rows, [&](std::int64_t row, int) {
    const float* mine = products + row * std::ssize(correction);
    std::vector<float> scores(n_experts), corrected(n_experts);
    for (std::size_t e = 0; e < n_experts; ++e) {
      scores[e] = 1 / (1 + std::exp(-mine[e]));
      corrected[e] = scores[e] + correction[e];
    }
    std::int32_t* experts = choice.experts + row * choice.n_chosen;
    const std::span shares(choice.shares + row * choice.n_chosen, n_chosen);
    choose_best(corrected.data(), std::ssize(correction), choice.n_chosen, experts, shares.data());
    for (std::size_t i = 0; i < n_chosen; ++i)
      shares[i] = scores[static_cast<std::size_t>(experts[i])];
    finish_shares(routing, shares);
  });
}

void gate_experts(ThreadPool& pool, const Kernels& kernels, Rows normed,
                  std::span<const Expert> experts, const GatedUnit& unit,
                  const ExpertChoice& choice, Product product, Rows gated) {
  STARATTN_CHECK(normed.n_rows == choice.n_rows && gated.n_rows == choice.n_rows * choice.n_chosen);
  const auto linear = product == Product::chunk ? linear_chunk : linear_thin;
  const Sorted sorted = sort_by_expert(choice, experts.size());
  std::vector<float> in_memory, up_memory;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const Rows gate = sorted.rows_of(e, gated);
    if (gate.n_rows == 0) continue;
    const std::int64_t* places = sorted.places.data() + sorted.first[e];
    const Expert& expert = experts[e];
    const Rows in = rows_over(in_memory, gate.n_rows, normed.width);
    const Rows up = rows_over(up_memory, gate.n_rows, gated.width);
    for (std::int64_t i = 0; i < gate.n_rows; ++i)
      std::copy_n(row_of(normed, places[i] / choice.n_chosen), in.width, row_of(in, i));
    linear(pool, kernels, in, expert.gate_proj, expert.gate_bias, gate);
    linear(pool, kernels, in, expert.up_proj, expert.up_bias, up);
    pool.parallel_for(gate.n_rows, [&](std::int64_t i, int) {
      if (unit.is_swiglu()) {
        kernels.swiglu(row_of(gate, i), row_of(up, i), gate.width, row_of(gate, i));
      } else {
        apply(unit, row_of(gate, i), row_of(up, i), gate.width);
      }
    });
  }
}

void add_gated_experts(ThreadPool& pool, const Kernels& kernels, Rows x, Rows gated,
                       std::span<const Expert> experts, const ExpertChoice& choice,
                       Product product) {
  STARATTN_CHECK(x.n_rows == choice.n_rows && gated.n_rows == choice.n_rows * choice.n_chosen);
  const auto linear = product == Product::chunk ? linear_chunk : linear_thin;
  const Sorted sorted = sort_by_expert(choice, experts.size());
  std::vector<float> made_memory;
  const Rows made = rows_over(made_memory, gated.n_rows, x.width);  // sorted
  std::vector<std::int64_t> sorted_at(sorted.places.size());        // where a place's row is in it
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const Rows in = sorted.rows_of(e, gated);
    if (in.n_rows == 0) continue;
    linear(pool, kernels, in, experts[e].down_proj, experts[e].down_bias, sorted.rows_of(e, made));
  }
  for (std::size_t i = 0; i < sorted.places.size(); ++i)
    sorted_at[static_cast<std::size_t>(sorted.places[i])] = static_cast<std::int64_t>(i);
  pool.parallel_for(x.n_rows, [&](std::int64_t row, int) {
    float* out = row_of(x, row);
    const float* shares = choice.shares + row * choice.n_chosen;
    const std::int64_t* from = sorted_at.data() + row * choice.n_chosen;
    for (std::int64_t c = 0; c < x.width; ++c) {
      float sum = 0;
      for (std::int64_t i = 0; i < choice.n_chosen; ++i)
        sum += shares[i] * row_of(made, from[i])[c];
      out[c] += sum;
    }
  });
}

}  // namespace starattn::cpu
