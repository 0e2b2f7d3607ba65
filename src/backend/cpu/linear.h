// SPDX-License-Identifier: Apache-2.0
// The two matrix products of the CPU backend, y = x W^T + bias.
#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"

namespace starattn::cpu {

// Many rows at once through OpenBLAS, weights widened a panel at a time.
void linear_chunk(ThreadPool& pool, const Kernels& kernels, Rows x, const WeightView& w,
                  const WeightView& bias, Rows y);

// Row by row bits: each result is one dot product with a fixed k order. Bandwidth-bound for few
// rows.
void linear_thin(ThreadPool& pool, const Kernels& kernels, Rows x, const WeightView& w,
                 const WeightView& bias, Rows y);

}  // namespace starattn::cpu
