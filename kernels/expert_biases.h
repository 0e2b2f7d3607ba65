// SPDX-License-Identifier: Apache-2.0
// Between the products of experts that have biases or another gate than SwiGLU. Rows are those of
// sorted places (experts.h). All asynchronous on `stream`; all pointers are device memory.
#pragma once

#include <cstdint>

#include "launch.h"

namespace starattn::kernels {

// Whose bias each of n sorted places takes: that of expert[places[i]].
struct PlacesOfExperts {
  const std::int32_t* experts = nullptr;  // [n], by place
  const std::int32_t* places = nullptr;   // [n]
  std::int64_t n = 0;
};

// Biases of experts: [n_experts] pointers to bf16 [width]; null: none has one.
using ExpertBiases = const void* const*;

// g sigmoid(slope g) (u + shift), with g = min(gate, limit) and u = up between -limit and limit.
struct GatedUnit {
  float slope = 1, shift = 0, limit = 0;
};

// logits fp32 [n_rows, n_experts] += bias, bf16 [n_experts].
void add_router_bias(float* logits, const void* bias, std::int64_t n_rows, int n_experts,
                     Stream stream);
// gate = the unit of gate and up, each with its bias; bf16 [n places, width], width: a multiple
// of 8. Throws BadShape.
void gate_with_biases(void* gate, const void* up, ExpertBiases gate_bias, ExpertBiases up_bias,
                      const PlacesOfExperts& of, std::int64_t width, const GatedUnit& unit,
                      Stream stream);
// rows += bias; alike.
void add_expert_biases(void* rows, ExpertBiases bias, const PlacesOfExperts& of, std::int64_t width,
                       Stream stream);

}  // namespace starattn::kernels
