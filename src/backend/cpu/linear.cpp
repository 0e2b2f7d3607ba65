// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/linear.h"

#include <cblas.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace starattn::cpu {
namespace {

constexpr std::int64_t kPanel = 256;       // outputs of one OpenBLAS call
constexpr std::int64_t kThinColumns = 64;  // outputs of one task of the thin product
constexpr std::int64_t kWidened = 4;  // of them whose FP8 rows are widened at a time, for caches

void check_shapes(Rows x, const WeightView& w, const WeightView& bias, Rows y) {
  STARATTN_CHECK(x.width == w.n_cols && y.width == w.n_rows && x.n_rows == y.n_rows);
  STARATTN_CHECK(!bias || bias.n_cols == y.width);
}

void add_bias(const Kernels& kernels, const WeightView& bias, std::int64_t first, std::int64_t n,
              Rows y) {
  if (!bias) return;
  std::vector<float> values(static_cast<std::size_t>(n));
  kernels.widen(bias.data + static_cast<std::size_t>(first) * size_of(bias.dtype), bias.dtype, n,
                values.data());
  auto* out = reinterpret_cast<float*>(y.data);
  for (std::int64_t row = 0; row < y.n_rows; ++row) {
    for (std::int64_t j = 0; j < n; ++j)
      out[row * y.width + first + j] += values[static_cast<std::size_t>(j)];
  }
}

const std::byte* row_of(const WeightView& w, std::int64_t row) {
  return w.data +
         static_cast<std::size_t>(row) * static_cast<std::size_t>(w.n_cols) * size_of(w.dtype);
}

// Rows of w in fp32. [n, n_cols]
void widen_rows(const Kernels& kernels, const WeightView& w, std::int64_t first, std::int64_t n,
                float* to) {
  if (w.dtype != Dtype::f8) return kernels.widen(row_of(w, first), w.dtype, n * w.n_cols, to);
  for (std::int64_t row = first; row < first + n; ++row, to += w.n_cols) {
    const float* scales = w.scales_of_row(row);
    const std::byte* from = row_of(w, row);
    for (std::int64_t begin = 0; begin < w.n_cols; begin += w.scales.block_cols, ++scales) {
      const std::int64_t end = std::min(w.n_cols, begin + w.scales.block_cols);
      kernels.widen_f8(from + begin, *scales, end - begin, to + begin);
    }
  }
}

// Memory of the calling thread for n floats, kept from panel to panel and freed with the thread.
float* panel_memory(std::int64_t n) {
  thread_local std::vector<float> memory;
  if (std::ssize(memory) < n) memory.resize(static_cast<std::size_t>(n));
  return memory.data();
}

}  // namespace

void linear_chunk(ThreadPool& pool, const Kernels& kernels, Rows x, const WeightView& w,
                  const WeightView& bias, Rows y) {
  check_shapes(x, w, bias, y);
  if (x.n_rows == 0) return;
  const auto* in = reinterpret_cast<const float*>(x.data);
  auto* out = reinterpret_cast<float*>(y.data);
  const bool in_place =
      w.dtype == Dtype::f32 && reinterpret_cast<std::uintptr_t>(w.data) % alignof(float) == 0;
  pool.parallel_for((w.n_rows + kPanel - 1) / kPanel, [&](std::int64_t panel, int) {
    const std::int64_t first = panel * kPanel;
    const std::int64_t n = std::min(kPanel, w.n_rows - first);
    const float* weights = reinterpret_cast<const float*>(row_of(w, first));
    if (!in_place) {
      float* widened = panel_memory(n * w.n_cols);
      widen_rows(kernels, w, first, n, widened);
      weights = widened;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(x.n_rows),
                static_cast<int>(n), static_cast<int>(w.n_cols), 1.0F, in,
                static_cast<int>(x.width), weights, static_cast<int>(w.n_cols), 0.0F, out + first,
                static_cast<int>(y.width));
    add_bias(kernels, bias, first, n, y);
  });
}

void linear_thin(ThreadPool& pool, const Kernels& kernels, Rows x, const WeightView& w,
                 const WeightView& bias, Rows y) {
  check_shapes(x, w, bias, y);
  const auto* in = reinterpret_cast<const float*>(x.data);
  auto* out = reinterpret_cast<float*>(y.data);
  pool.parallel_for((w.n_rows + kThinColumns - 1) / kThinColumns, [&](std::int64_t task, int) {
    const std::int64_t first = task * kThinColumns;
    const std::int64_t n = std::min(kThinColumns, w.n_rows - first);
    if (w.dtype != Dtype::f8) {
      kernels.dot_rows(in, x.width, x.n_rows, row_of(w, first), w.n_cols, w.dtype, n, w.n_cols,
                       out + first, y.width);
    }
    for (std::int64_t j = 0; w.dtype == Dtype::f8 && j < n; j += kWidened) {
      const std::int64_t n_wide = std::min(kWidened, n - j);
      float* wide = panel_memory(n_wide * w.n_cols);
      widen_rows(kernels, w, first + j, n_wide, wide);
      kernels.dot_rows(in, x.width, x.n_rows, reinterpret_cast<const std::byte*>(wide), w.n_cols,
                       Dtype::f32, n_wide, w.n_cols, out + first + j, y.width);
    }
    add_bias(kernels, bias, first, n, y);
  });
}

}  // namespace starattn::cpu
