// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/mixtures.h"

#include "backend/cuda/as_kernel.h"

namespace starattn::cuda {
namespace {

// For the length of an operation; few rows, which come again in each layer, take what is kept.
Buffer memory_for(Product product, Device& device, std::int64_t count, std::size_t value_bytes) {
  const std::size_t n_bytes = static_cast<std::size_t>(count) * value_bytes;
  return product == Product::chunk ? device.allocate(n_bytes) : device.scratch(n_bytes);
}

struct RowsOf {
  RowsOf(Product product, Device& device, std::int64_t n_rows, std::int64_t width)
      : memory(memory_for(product, device, n_rows * width, size_of(Dtype::bf16))),
        rows{memory.data(), n_rows, width} {}
  Buffer memory;
  Rows rows;
};

std::size_t number_of(WeightView Expert::*kind) {
  return kind == &Expert::gate_proj ? 0 : kind == &Expert::up_proj ? 1 : 2;
}

}  // namespace

void Mixtures::choose(Rows x, const Router& router, Product product, const ExpertChoice& choice) {
  STARATTN_CHECK(choice.n_rows == x.n_rows && router.w.n_cols == x.width);
  const auto n_experts = static_cast<int>(router.w.n_rows);
  const Buffer logits = memory_for(product, device_, x.n_rows * n_experts, sizeof(float));
  products_.to_f32(x, router.w, product, floats(logits));
  if (router.bias) {
    kernels::add_router_bias(floats(logits), weights_.find(router.bias), x.n_rows, n_experts,
                             device_.stream());
  }
  const Routing& routing = router.routing;
  kernels::choose_experts(floats(logits), x.n_rows, n_experts, static_cast<int>(choice.n_chosen),
                          {routing.is_sigmoid, routing.renormalise, routing.scale,
                           weights_.find_exact(router.correction)},
                          choice.experts, choice.shares, place_for(choice, product).view,
                          device_.stream());
}

void Mixtures::add(Rows x, Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                   const ExpertChoice& choice, Product product) {
  STARATTN_CHECK(normed.width == x.width && !experts.empty());
  const Sorted sorted = sort(choice, experts.size(), product);
  const RowsOf gated(product, device_, sorted.view.n_places, experts[0].gate_proj.n_rows);
  // Here already, since the product with them begins to read while gate and up are multiplied.
  const Matrices down = matrices_of(experts, &Expert::down_proj, product);
  gate(normed, experts, unit, choice, product, sorted, gated.rows);
  add_gated(x, gated.rows, experts, choice, product, sorted, down, true);
}

void Mixtures::gate(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                    const ExpertChoice& choice, Product product, Rows gated) {
  gate(normed, experts, unit, choice, product, sort(choice, experts.size(), product), gated);
}

void Mixtures::add_gated(Rows x, Rows gated, std::span<const Expert> experts,
                         const ExpertChoice& choice, Product product) {
  add_gated(x, gated, experts, choice, product, sort(choice, experts.size(), product),
            matrices_of(experts, &Expert::down_proj, product), false);
}

Mixtures::Sorted Mixtures::place_for(const ExpertChoice& choice, Product product) {
  const std::int64_t n_places = choice.n_rows * choice.n_chosen;
  Sorted sorted;
  std::int32_t* at = choice.order;
  if (!at) {
    sorted.memory =
        memory_for(product, device_, ExpertChoice::order_size(n_places), sizeof(std::int32_t));
    at = reinterpret_cast<std::int32_t*>(sorted.memory.data());
  }
  sorted.view = {
      .places = at,
      .sorted = at + n_places,
      .tiles = reinterpret_cast<kernels::ExpertTile*>(at + 2 * n_places + 1),
      .n_tiles = at + 2 * n_places,
      .n_places = n_places,
      .tile_rows = product == Product::chunk ? kernels::kWideTileRows : kernels::kThinTileRows};
  sorted.of = {choice.experts, sorted.view.places, n_places};
  return sorted;
}

Mixtures::Sorted Mixtures::sort(const ExpertChoice& choice, std::size_t n_experts,
                                Product product) {
  Sorted sorted = place_for(choice, product);
  if (!choice.order) {
    kernels::sort_places(choice.experts, static_cast<int>(n_experts), sorted.view,
                         device_.stream());
  }
  return sorted;
}

void Mixtures::gate(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                    const ExpertChoice& choice, Product product, const Sorted& sorted, Rows gated) {
  STARATTN_CHECK(normed.n_rows == choice.n_rows && gated.n_rows == sorted.view.n_places);
  kernels::ExpertLinear to{
      .x = normed.data, .y = gated.data, .places_per_row = static_cast<int>(choice.n_chosen)};
  const Matrices gate_proj = matrices_of(experts, &Expert::gate_proj, product);
  const Matrices up_proj = matrices_of(experts, &Expert::up_proj, product);
  if (unit.is_swiglu() && !experts[0].gate_bias) return multiply(to, gate_proj, &up_proj, sorted);
  multiply(to, gate_proj, nullptr, sorted);
  const RowsOf up(product, device_, gated.n_rows, gated.width);
  to.y = up.rows.data;
  multiply(to, up_proj, nullptr, sorted);
  kernels::gate_with_biases(gated.data, up.rows.data, biases_of(experts, &Expert::gate_bias),
                            biases_of(experts, &Expert::up_bias), sorted.of, gated.width,
                            {unit.slope, unit.shift, unit.limit}, device_.stream());
}

void Mixtures::add_gated(Rows x, Rows gated, std::span<const Expert> experts,
                         const ExpertChoice& choice, Product product, const Sorted& sorted,
                         const Matrices& down, bool is_behind_gate) {
  STARATTN_CHECK(x.n_rows == choice.n_rows && gated.n_rows == sorted.view.n_places);
  const RowsOf made(product, device_, gated.n_rows, x.width);
  multiply({.x = gated.data, .y = made.rows.data, .is_behind_another = is_behind_gate}, down,
           nullptr, sorted);
  if (experts[0].down_bias) {
    kernels::add_expert_biases(made.rows.data, biases_of(experts, &Expert::down_bias), sorted.of,
                               x.width, device_.stream());
  }
  kernels::add_made(x.data, made.rows.data, sorted.view.sorted, choice.shares, x.n_rows,
                    static_cast<int>(choice.n_chosen), x.width, device_.stream());
}

void Mixtures::multiply(kernels::ExpertLinear p, const Matrices& w, const Matrices* up,
                        const Sorted& sorted) {
  p.n_out = w.of_one.n_rows;
  p.n_in = w.of_one.n_cols;
  p.n_experts = static_cast<int>(w.n_experts);
  p.w = w.values;
  p.scales = w.scales;
  p.block_rows = w.of_one.scales.block_rows;
  p.block_cols = w.of_one.scales.block_cols;
  p.first_row = w.first_row;
  if (up) {
    p.w_up = up->values;
    p.up_scales = up->scales;
  }
  kernels::expert_linear(p, sorted.view, device_.stream());
}

const Mixtures::Table& Mixtures::table_of(std::span<const Expert> experts, Kind kind) {
  const WeightView& first = experts[0].*kind;
  if (weights_.is_lent(first)) {
    Table& lent = lent_[number_of(kind)];
    lent = make_table(experts, kind);
    return lent;
  }
  Table& table = tables_[{first.data, first.n_rows}];
  if (!table.values.data()) table = make_table(experts, kind);
  return table;
}

// For products of many rows all are bf16. Phase 1 goes through a layer chunk by chunk, so what was
// widened for one is kept for the next; phase 2 has no use for it.
Mixtures::Matrices Mixtures::matrices_of(std::span<const Expert> experts, Kind kind,
                                         Product product) {
  const WeightView& first = experts[0].*kind;
  const auto with = [&](const void* const* values) {
    return Matrices{first, std::ssize(experts), values};
  };
  const auto are_widened = [&](const Widened& wide) {
    return with(reinterpret_cast<const void* const*>(wide.places.data()));
  };
  if (product == Product::chunk && !widened_.empty()) {
    const Widened& wide = widened_[number_of(kind)];
    if (wide.of == first.data) return are_widened(wide);
  }
  const Table& table = table_of(experts, kind);
  const auto* values = reinterpret_cast<const void* const*>(table.values.data());
  const auto* scales = reinterpret_cast<const float* const*>(table.scales.data());
  Matrices matrices = with(values);
  if (!scales) return matrices;
  if (product == Product::batch_invariant) {
    widened_.clear();
    matrices.scales = scales;
    matrices.first_row = table.first_row;
    return matrices;
  }
  STARATTN_CHECK(table.first_row == 0);  // whole matrices
  widened_.resize(3);
  Widened& wide = widened_[number_of(kind)];
  widen(std::ssize(experts), first, {values, scales}, wide);
  return are_widened(wide);
}

kernels::ExpertBiases Mixtures::biases_of(std::span<const Expert> experts, Kind kind) {
  if (!(experts[0].*kind)) return nullptr;
  return reinterpret_cast<kernels::ExpertBiases>(table_of(experts, kind).values.data());
}

Mixtures::Table Mixtures::make_table(std::span<const Expert> experts, Kind kind) {
  std::vector<const void*> values, scales;
  std::int64_t first_row = 0;  // the same of all
  for (const Expert& expert : experts) {
    if (weights_.is_f8(expert.*kind)) {
      const kernels::ScaledMatrix matrix = weights_.find_f8(expert.*kind);
      STARATTN_CHECK(scales.empty() || matrix.first_row == first_row);
      first_row = matrix.first_row;
      values.push_back(matrix.values);
      scales.push_back(matrix.scales);
    } else {
      values.push_back(weights_.find(expert.*kind));
    }
  }
  STARATTN_CHECK(scales.empty() || scales.size() == values.size());
  return {upload_pointers(values), scales.empty() ? Buffer{} : upload_pointers(scales), first_row};
}

Buffer Mixtures::upload_pointers(const std::vector<const void*>& pointers) {
  const auto bytes = std::as_bytes(std::span(pointers));
  Buffer there = device_.allocate(bytes.size());
  device_.upload_later(bytes, there.data());
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
