// SPDX-License-Identifier: Apache-2.0
// Products of rows with a matrix: of many rows (phase 1) through cuBLASLt, or where they are
// rounded to FP8 through a kernel of our own; of few (phase 2) through the thin kernels, which take
// FP8 matrices as they are.
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/device_weights.h"
#include "backend/cuda/mail.h"
#include "backend/cuda/matmul.h"
#include "thin_linear.h"

namespace starattn::cuda {

class Products {
 public:
  Products(Device& device, DeviceWeights& weights, Mail& mail)
      : device_(device), weights_(weights), mail_(mail), matmul_(device) {}

  // y = x W^T + bias of each projection, or y += with `add`.
  void linear(Rows x, std::span<const Projection> to, Product product, bool add);
  // The same of many rows, which are rounded to FP8 for products with FP8 matrices.
  void linear_rounded(Rows x, std::span<const Projection> to, bool add);
  // gate.y = silu(the first product) * (the second), few rows. Both matrices are FP8, or none is.
  void thin_gated(Rows x, const Projection& gate, const Projection& up);
  bool are_alike(const WeightView& a, const WeightView& b) {
    return weights_.is_f8(a) == weights_.is_f8(b);
  }
  // y [n_rows, n_out] = x W^T in fp32.
  void to_f32(Rows x, const WeightView& w, Product product, float* y);

  // The matrix in bf16; one that is kept as FP8 is widened into `memory`.
  const void* in_bf16(const WeightView& w, Buffer& memory);

 private:
  bool takes_rounded(const WeightView& w);
  void many_rows(Rows x, const Projection& to, bool add);
  void few_rows(Rows x, std::span<const Projection> to, bool add);
  // Without its matrices.
  kernels::ThinLinear thin(Rows x, kernels::ThinKind kind, std::size_t n_outputs);
  kernels::ThinOutput thin_output(Rows x, const Projection& to);
  kernels::ThinOutput thin_output(const WeightView& w, const WeightView& bias, void* y);

  Device& device_;
  DeviceWeights& weights_;
  Mail& mail_;
  Matmul matmul_;
};

}  // namespace starattn::cuda
