// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/mixtures.h"

#include "backend/cuda/as_kernel.h"

namespace starattn::cuda {

void Mixtures::choose(Rows x, const WeightView& router, const WeightView& bias, bool renormalise,
                      Product product, const ExpertChoice& choice) {
  STARATTN_CHECK(choice.n_rows == x.n_rows && router.n_cols == x.width);
  const Buffer logits =
      device_.allocate(static_cast<std::size_t>(x.n_rows * router.n_rows) * sizeof(float));
  products_.to_f32(x, router, product, floats(logits));
  if (bias) {
    kernels::add_router_bias(floats(logits), weights_.find(bias), x.n_rows,
                             static_cast<int>(router.n_rows), device_.stream());
  }
  kernels::choose_experts(floats(logits), x.n_rows, static_cast<int>(router.n_rows),
                          static_cast<int>(choice.n_chosen), renormalise, choice.experts,
                          choice.shares, device_.stream());
}

void Mixtures::add(Rows x, Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                   const ExpertChoice& choice, Product product) {
  STARATTN_CHECK(choice.n_rows == x.n_rows && normed.n_rows == x.n_rows &&
                 normed.width == x.width && !experts.empty());
  const auto n_experts = static_cast<int>(experts.size());
  const auto n_chosen = static_cast<int>(choice.n_chosen);
  const std::int64_t n_places = x.n_rows * choice.n_chosen;
  const std::int64_t size = experts[0].gate_proj.n_rows;
  const int tile_rows = product == Product::chunk ? kernels::kWideTileRows : kernels::kThinTileRows;
  const auto allocate_for = [&](std::int64_t n, std::size_t n_bytes) {
    return device_.allocate(static_cast<std::size_t>(n) * n_bytes);
  };
  const Buffer places = allocate_for(2 * n_places, sizeof(std::int32_t));
  const Buffer tiles = allocate_for(kernels::most_expert_tiles(n_places, n_experts, tile_rows),
                                    sizeof(kernels::ExpertTile));
  const Buffer inner = allocate_for(n_places * size, size_of(Dtype::bf16));
  const Buffer made = allocate_for(n_places * x.width, size_of(Dtype::bf16));
  auto* in_order = reinterpret_cast<std::int32_t*>(places.data());
  const kernels::SortedPlaces sorted{in_order, in_order + n_places,
                                     reinterpret_cast<kernels::ExpertTile*>(tiles.data()), n_places,
                                     tile_rows};
  kernels::sort_places(choice.experts, n_experts, sorted, device_.stream());
  const auto multiply = [&](kernels::ExpertLinear p, WeightView Expert::*kind,
                            WeightView Expert::*up_kind) {
    const Matrices w = matrices_of(experts, kind, product);
    p.n_out = w.of_one.n_rows;
    p.n_in = w.of_one.n_cols;
    p.n_experts = n_experts;
    p.w = w.values;
    p.scales = w.scales;
    p.block_rows = w.of_one.scales.block_rows;
    p.block_cols = w.of_one.scales.block_cols;
    if (up_kind) {
      const Matrices up = matrices_of(experts, up_kind, product);
      p.w_up = up.values;
      p.up_scales = up.scales;
    }
    kernels::expert_linear(p, sorted, device_.stream());
  };
  const kernels::PlacesOfExperts of{choice.experts, sorted.places, n_places};
  kernels::ExpertLinear to_inner{.x = normed.data, .y = inner.data(), .places_per_row = n_chosen};
  if (unit.is_swiglu() && !experts[0].gate_bias) {
    multiply(to_inner, &Expert::gate_proj, &Expert::up_proj);
  } else {
    const Buffer up = allocate_for(n_places * size, size_of(Dtype::bf16));
    multiply(to_inner, &Expert::gate_proj, nullptr);
    to_inner.y = up.data();
    multiply(to_inner, &Expert::up_proj, nullptr);
    kernels::gate_with_biases(inner.data(), up.data(), biases_of(experts, &Expert::gate_bias),
                              biases_of(experts, &Expert::up_bias), of, size,
                              {unit.slope, unit.shift, unit.limit}, device_.stream());
  }
  multiply({.x = inner.data(), .y = made.data()}, &Expert::down_proj, nullptr);
  if (experts[0].down_bias) {
    kernels::add_expert_biases(made.data(), biases_of(experts, &Expert::down_bias), of, x.width,
                               device_.stream());
  }
  kernels::add_made(x.data, made.data(), sorted.sorted, choice.shares, x.n_rows, n_chosen, x.width,
                    device_.stream());
}

// For products of many rows all are bf16. Phase 1 goes through a layer chunk by chunk, so what was
// widened for one is kept for the next; phase 2 has no use for it.
Mixtures::Matrices Mixtures::matrices_of(std::span<const Expert> experts, WeightView Expert::*kind,
                                         Product product) {
  const WeightView& first = experts[0].*kind;
  Table& table = tables_[first.data];
  if (!table.values.data()) table = make_table(experts, kind);
  const auto* values = reinterpret_cast<const void* const*>(table.values.data());
  const auto* scales = reinterpret_cast<const float* const*>(table.scales.data());
  if (!scales) return {first, values};
  if (product == Product::batch_invariant) {
    widened_.clear();
    return {first, values, scales};
  }
  const std::size_t number = kind == &Expert::gate_proj ? 0 : kind == &Expert::up_proj ? 1 : 2;
  widened_.resize(3);
  Widened& wide = widened_[number];
  if (wide.of != first.data) widen(std::ssize(experts), first, {values, scales}, wide);
  return {first, reinterpret_cast<const void* const*>(wide.places.data())};
}

kernels::ExpertBiases Mixtures::biases_of(std::span<const Expert> experts,
                                          WeightView Expert::*kind) {
  if (!(experts[0].*kind)) return nullptr;
  Table& table = tables_[(experts[0].*kind).data];
  if (!table.values.data()) table = make_table(experts, kind);
  return reinterpret_cast<kernels::ExpertBiases>(table.values.data());
}

Mixtures::Table Mixtures::make_table(std::span<const Expert> experts, WeightView Expert::*kind) {
  std::vector<const void*> values, scales;
  for (const Expert& expert : experts) {
    if (weights_.is_f8(expert.*kind)) {
      const kernels::ScaledMatrix matrix = weights_.find_f8(expert.*kind);
      values.push_back(matrix.values);
      scales.push_back(matrix.scales);
    } else {
      values.push_back(weights_.find(expert.*kind));
    }
  }
  STARATTN_CHECK(scales.empty() || scales.size() == values.size());
  return {upload_pointers(values), scales.empty() ? Buffer{} : upload_pointers(scales)};
}

Buffer Mixtures::upload_pointers(const std::vector<const void*>& pointers) {
  const auto bytes = std::as_bytes(std::span(pointers));
  Buffer there = device_.allocate(bytes.size());
  device_.upload(bytes, there.data());
  return there;
}

void Mixtures::widen(std::int64_t n_experts, const WeightView& one, kernels::ExpertMatrices from,
                     Widened& to) {
  const auto one_bytes = static_cast<std::size_t>(one.n_rows * one.n_cols) * size_of(Dtype::bf16);
  const std::size_t n_bytes = static_cast<std::size_t>(n_experts) * one_bytes;
  if (to.memory.n_bytes() != n_bytes) {
    to.memory = device_.allocate(n_bytes);
    std::vector<const void*> places;
    for (std::size_t at = 0; at < n_bytes; at += one_bytes) places.push_back(to.memory.data() + at);
    to.places = upload_pointers(places);
  }
  to.of = one.data;
  from.n_experts = static_cast<int>(n_experts);
  from.n_rows = one.n_rows;
  from.n_cols = one.n_cols;
  from.block_rows = one.scales.block_rows;
  from.block_cols = one.scales.block_cols;
  kernels::widen_experts(from, to.memory.data(), device_.stream());
}

}  // namespace starattn::cuda
