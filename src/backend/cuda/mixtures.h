// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts: a row's choice, and the products of each expert with the rows that chose it.
#pragma once

#include <span>
#include <unordered_map>
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

  void choose(Rows x, const WeightView& router, const WeightView& bias, bool renormalise,
              Product product, const ExpertChoice& choice);
  void add(Rows x, Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
           const ExpertChoice& choice, Product product);

 private:
  // One matrix of each of a layer's experts, as the device has them: [n_experts].
  struct Matrices {
    WeightView of_one;  // their shape and blocks
    const void* const* values = nullptr;
    const float* const* scales = nullptr;  // null: bf16
  };
  struct Table {
    Buffer values, scales;  // [n_experts] pointers; no scales: bf16
  };
  struct Widened {
    const std::byte* of = nullptr;  // the first expert's matrix on the host
    Buffer memory, places;          // places: [n_experts] pointers into memory
  };
  Matrices matrices_of(std::span<const Expert> experts, WeightView Expert::*kind, Product product);
  // The same of biases; null where there are none.
  kernels::ExpertBiases biases_of(std::span<const Expert> experts, WeightView Expert::*kind);
  Table make_table(std::span<const Expert> experts, WeightView Expert::*kind);
  Buffer upload_pointers(const std::vector<const void*>& pointers);
  void widen(std::int64_t n_experts, const WeightView& one, kernels::ExpertMatrices from,
             Widened& to);

  Device& device_;
  DeviceWeights& weights_;
  Products& products_;
  std::unordered_map<const std::byte*, Table> tables_;  // by the first expert's matrix
  std::vector<Widened> widened_;                        // gate, up and down of one layer, or none
};

}  // namespace starattn::cuda
