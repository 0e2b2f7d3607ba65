// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/products.h"

#include "elementwise.h"
#include "f8_linear.h"

namespace starattn::cuda {
namespace {

void check_shape(Rows x, const Projection& to) {
  STARATTN_CHECK(x.width == to.w.n_cols && to.y.width == to.w.n_rows && x.n_rows == to.y.n_rows);
}

}  // namespace

void Products::linear(Rows x, std::span<const Projection> to, Product product, bool add) {
  if (product == Product::batch_invariant) return few_rows(x, to, add);
  for (const Projection& p : to) many_rows(x, p, add);
}

void Products::many_rows(Rows x, const Projection& to, bool add) {
  check_shape(x, to);
  Buffer memory;
  matmul_(x.data, in_bf16(to.w, memory), weights_.find(to.bias), to.y.data, x.n_rows, to.w.n_rows,
          to.w.n_cols, add);
}

void Products::linear_rounded(Rows x, std::span<const Projection> to, bool add) {
  const auto n = static_cast<std::size_t>(x.n_rows * x.width);
  Buffer values, scales, wide;
  const auto rounded = [&] {
    const bool is_new = !values.data();
    if (is_new) values = device_.allocate(n);
    if (is_new) scales = device_.allocate(static_cast<std::size_t>(x.n_rows) * sizeof(float));
    const kernels::RoundedRows rows{values.data(), reinterpret_cast<float*>(scales.data()),
                                    x.n_rows, x.width};
    if (is_new) kernels::round_rows(x.data, rows, device_.stream());
    return rows;
  };
  const auto widened = [&] {  // exactly: the scales are powers of two
    if (!wide.data()) {
      const kernels::RoundedRows rows = rounded();
      wide = device_.allocate(n * size_of(Dtype::bf16));
      kernels::f8_to_bf16({rows.values, x.n_rows, x.width, rows.scales, 1, x.width}, wide.data(),
                          device_.stream());
    }
    return Rows{wide.data(), x.n_rows, x.width};
  };
  for (const Projection& p : to) {
    if (p.w.dtype != Dtype::f8) {
      many_rows(x, p, add);
    } else if (takes_rounded(p.w)) {
      check_shape(x, p);
      kernels::f8_linear({rounded(), weights_.find_f8(p.w), weights_.find(p.bias), p.y.data, add},
                         device_.stream());
    } else {
      many_rows(widened(), p, add);
    }
  }
}

bool Products::takes_rounded(const WeightView& w) {
  return weights_.is_f8(w) && kernels::takes_f8_linear(weights_.find_f8(w));
}

void Products::few_rows(Rows x, std::span<const Projection> to, bool add) {
  STARATTN_CHECK(to.size() <= kernels::kMaxThinOutputs);
  for (const Projection& p : to) {
    if (are_alike(p.w, to[0].w)) continue;
    for (const Projection& one : to) few_rows(x, {&one, 1}, add);
    return;
  }
  kernels::ThinLinear product = thin(x, kernels::ThinKind::bf16, to.size());
  for (std::size_t i = 0; i < to.size(); ++i) {
    product.outputs[i] = thin_output(x, to[i]);
    if (add) product.outputs[i].plus = to[i].y.data;
  }
  if (add && to.size() == 1) product.send = mail_.out.take(to[0].y.data);
  kernels::thin_linear(product, device_.stream());
}

void Products::thin_gated(Rows x, const Projection& gate, const Projection& up) {
  kernels::ThinLinear both = thin(x, kernels::ThinKind::gated, 2);
  both.outputs[0] = thin_output(x, gate);
  both.outputs[1] = thin_output(x, up);
  both.send = mail_.out.take(gate.y.data);
  kernels::thin_linear(both, device_.stream());
}

void Products::to_f32(Rows x, const WeightView& w, Product product, float* y) {
  if (product == Product::chunk) {
    Buffer memory;
    matmul_.to_f32(x.data, in_bf16(w, memory), y, x.n_rows, w.n_rows, w.n_cols);
    return;
  }
  kernels::ThinLinear logits = thin(x, kernels::ThinKind::f32, 1);
  logits.outputs[0] = thin_output(w, {}, y);
  kernels::thin_linear(logits, device_.stream());
}

kernels::ThinLinear Products::thin(Rows x, kernels::ThinKind kind, std::size_t n_outputs) {
  kernels::ThinLinear product;
  product.x = x.data;
  product.n_rows = x.n_rows;
  product.n_in = x.width;
  product.kind = kind;
  product.n_outputs = static_cast<int>(n_outputs);
  product.awaited = mail_.in.take(x.data);
  return product;
}

kernels::ThinOutput Products::thin_output(Rows x, const Projection& to) {
  check_shape(x, to);
  return thin_output(to.w, to.bias, to.y.data);
}

kernels::ThinOutput Products::thin_output(const WeightView& w, const WeightView& bias, void* y) {
  kernels::ThinOutput output;
  output.bias = weights_.find(bias);
  output.y = y;
  output.n_out = w.n_rows;
  if (!weights_.is_f8(w)) {
    output.w = weights_.find(w);
    return output;
  }
  const kernels::ScaledMatrix matrix = weights_.find_f8(w);
  output.w = matrix.values;
  output.scales = matrix.scales;
  output.block_rows = matrix.block_rows;
  output.block_cols = matrix.block_cols;
  output.first_row = matrix.first_row;
  return output;
}

const void* Products::in_bf16(const WeightView& w, Buffer& memory) {
  if (!weights_.is_f8(w)) return weights_.find(w);
  memory = device_.allocate(static_cast<std::size_t>(w.n_rows * w.n_cols) * size_of(Dtype::bf16));
  kernels::f8_to_bf16(weights_.find_f8(w), memory.data(), device_.stream());
  return memory.data();
}

}  // namespace starattn::cuda
