// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts on the CPU; see backend/backend.h. The rows of an expert go through it
// together, in ascending order, one expert after another.
#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"

namespace starattn::cpu {

// products [choice.n_rows, n_experts], of the router
void choose_by_softmax(ThreadPool& pool, const float* products, std::int64_t n_experts,
                       const Routing& routing, const ExpertChoice& choice);
// correction [n_experts]
void choose_by_sigmoid(ThreadPool& pool, const float* products, std::span<const float> correction,
                       const Routing& routing, const ExpertChoice& choice);

void gate_experts(ThreadPool& pool, const Kernels& kernels, Rows normed,
                  std::span<const Expert> experts, const GatedUnit& unit,
                  const ExpertChoice& choice, Product product, Rows gated);

void add_gated_experts(ThreadPool& pool, const Kernels& kernels, Rows x, Rows gated,
                       std::span<const Expert> experts, const ExpertChoice& choice,
                       Product product);

}  // namespace starattn::cpu
