// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts: a row's choice, and the products of each expert with the rows that chose it.
#pragma once

#include <map>
#include <span>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/device_weights.h"
#include "backend/cuda/products.h"
#include "expert_biases.h"
#include "experts.h"

namespace starattn::cuda {

class Mixtures {
 public:
  Mixtures(Device& device, DeviceWeights& weights, Products& products)
      : device_(device), weights_(weights), products_(products) {}

  void choose(Rows x, const Router& router, Product product, const ExpertChoice& choice);
  void add(Rows x, Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
           const ExpertChoice& choice, Product product);
  void gate(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
            const ExpertChoice& choice, Product product, Rows gated);
  void add_gated(Rows x, Rows gated, std::span<const Expert> experts, const ExpertChoice& choice,
                 Product product);

 private:
  // The places of a choice in their order, on the device: in the choice, or in memory of their own.
  struct Sorted {
    Buffer memory;
    kernels::SortedPlaces view;
    kernels::PlacesOfExperts of;
  };
  Sorted place_for(const ExpertChoice& choice, Product product);  // not sorted yet
  Sorted sort(const ExpertChoice& choice, std::size_t n_experts, Product product);
  void gate(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
            const ExpertChoice& choice, Product product, const Sorted& sorted, Rows gated);

  // One matrix of each of a layer's experts, as the device has them: [n_experts].
  struct Matrices {
    WeightView of_one;  // their shape and blocks
    std::int64_t n_experts = 0;
    const void* const* values = nullptr;
    const float* const* scales = nullptr;  // null: bf16
    std::int64_t first_row = 0;            // as kernels::ExpertLinear has it
  };
  struct Table {
    Buffer values, scales;  // [n_experts] pointers; no scales: bf16
    std::int64_t first_row = 0;
  };
  struct Widened {
    const std::byte* of = nullptr;  // the first expert's matrix on the host
    Buffer memory, places;          // places: [n_experts] pointers into memory
  };
  using Kind = WeightView Expert::*;
  // Not for long where the matrices are lent, which are then others.
  const Table& table_of(std::span<const Expert> experts, Kind kind);
  Matrices matrices_of(std::span<const Expert> experts, Kind kind, Product product);
  // The same of biases; null where there are none.
  kernels::ExpertBiases biases_of(std::span<const Expert> experts, Kind kind);
  // up: or null.
  void multiply(kernels::ExpertLinear product, const Matrices& w, const Matrices* up,
                const Sorted& sorted);
  // is_behind_gate: `down` was there before gate and up were multiplied with the same rows.
  void add_gated(Rows x, Rows gated, std::span<const Expert> experts, const ExpertChoice& choice,
                 Product product, const Sorted& sorted, const Matrices& down, bool is_behind_gate);
  Table make_table(std::span<const Expert> experts, Kind kind);
  Buffer upload_pointers(const std::vector<const void*>& pointers);
  void widen(std::int64_t n_experts, const WeightView& one, kernels::ExpertMatrices from,
             Widened& to);

  Device& device_;
  DeviceWeights& weights_;
  Products& products_;
  std::map<std::pair<const std::byte*, std::int64_t>, Table> tables_;  // of the first: data, rows
  Table lent_[3];                 // of gate, up and down that were lent last
  std::vector<Widened> widened_;  // gate, up and down of one layer, or none
};

}  // namespace starattn::cuda
