// SPDX-License-Identifier: Apache-2.0
// What the operations of a backend take and give: device memory, rows of activations, weights, keys
// and values, and unfinished attention with the one layout in which it is stored and travels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"

namespace starattn {

class Backend;

// Device memory, freed with its last owner. Move-only.
class Buffer {
 public:
  using Free = void (*)(void* data, void* context);
  Buffer() = default;
  Buffer(void* data, std::size_t n_bytes, Free free, void* context = nullptr)
      : data_(data), n_bytes_(n_bytes), free_(free), context_(context) {}
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  std::size_t n_bytes() const { return n_bytes_; }

 private:
  void reset() noexcept {
    if (data_) free_(data_, context_);
    data_ = nullptr;
  }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(n_bytes_, other.n_bytes_);
    std::swap(free_, other.free_);
    std::swap(context_, other.context_);
  }

  void* data_ = nullptr;
  std::size_t n_bytes_ = 0;
  Free free_ = nullptr;
  void* context_ = nullptr;
};

// Rows of activations on the device: [n_rows, width], contiguous, activation_dtype().
struct Rows {
  std::byte* data = nullptr;
  std::int64_t n_rows = 0;
  std::int64_t width = 0;
};

// Rows of any kind: activations, or keys or values.
struct RawRows {
  std::byte* data = nullptr;
  std::int64_t n_rows = 0;
  std::size_t row_bytes = 0;
};

// Keys and values of consecutive tokens in one layer, on the device.
struct KvSegment {
  const std::byte* k = nullptr;  // [n_tokens, n_kv_heads, head_dim], RoPE applied
  const std::byte* v = nullptr;  // [n_tokens, n_kv_heads, head_dim]
  std::int64_t n_tokens = 0;
  // Causal, bottom-right: of n query rows, row i sees the first n_tokens - n + 1 + i tokens.
  bool causal = false;
  bool is_f8 = false;  // rows as KvLayout says; else of the activations' dtype
  // Row i sees no token before first_seen + i: the near edge of a window that slides with the rows.
  std::int64_t first_seen = kAllSeen;
  const std::byte* exponents = nullptr;  // of FP8, where Backend::lay_out_exponents() left them

  static constexpr std::int64_t kAllSeen = INT64_MIN / 2;
  bool has_edge() const { return first_seen != kAllSeen; }
  // Tokens from `first` on. row_bytes: of K, or of V.
  KvSegment from(std::int64_t first, std::size_t row_bytes) const;
};

// What rows see of a segment through a window of so many tokens, their own the last of them. place:
// where row 0's own token stands, or would stand, among the segment's. Tokens that none of n_rows
// rows sees are left out, so that none may be left.
KvSegment through_window(KvSegment keys, std::int64_t window, std::int64_t place,
                         std::int64_t n_rows, std::size_t row_bytes);

// Unfinished attention of some rows over some keys (the merge: FlashAttention, arXiv 2205.14135):
// m = max_j s_j, l = sum_j exp(s_j - m), o = sum_j exp(s_j - m) v_j. The empty one is (0, -inf, 0).
// s is the scaled score q.k / sqrt(head_dim), natural logarithm base. All fp32, on the device.
struct Partial {
  float* o = nullptr;  // [n_rows, n_heads, head_dim], unnormalised
  float* m = nullptr;  // [n_rows, n_heads]
  float* l = nullptr;  // [n_rows, n_heads]
  std::int64_t n_rows = 0;
};

struct AttentionShape {
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
};

// Where a row's query keeps its K and V of one layer, on the device, in the activations' dtype: of
// all its tokens, or from the first one on that the row sees through a window.
struct OwnTokens {
  std::byte* k = nullptr;  // [at least n_before + 1, n_kv_heads, head_dim], RoPE applied
  std::byte* v = nullptr;
  std::int64_t n_before = 0;  // of these tokens before this row
  std::int64_t n_beside = 0;  // of them: the rows just before this one in the same call
};

// One step of merging partials that are numbered: `into` becomes itself merged with `from`.
struct Merge {
  int into = 0, from = 0;
};

// What parts[root] becomes when the merges are done in order. All parts are of the same rows.
struct PartialTree {
  std::vector<Partial> parts;
  std::vector<Merge> merges;
  std::size_t root = 0;
};

// What FP8 weights are multiplied by: a number for each block of the matrix, row-major.
struct WeightScales {
  const float* data = nullptr;  // on the host; finite and above 0
  std::int64_t block_rows = 0, block_cols = 0;
  std::int64_t first_row = 0;  // of the view, in the matrix whose blocks they are
};

// A matrix [n_rows, n_cols] (or a vector: n_rows = 1), row-major, in the dtype it has on disk.
// The address may be unaligned. data is null where the model has no such tensor (an absent bias).
struct WeightView {
  const std::byte* data = nullptr;
  Dtype dtype = Dtype::bf16;
  std::int64_t n_rows = 0;
  std::int64_t n_cols = 0;
  WeightScales scales = {};  // of f8
  // No device keeps it as f8: an expert of a layer where others are wider, and what is no matrix of
  // a product.
  bool is_beside_wider = false;
  bool is_exact = false;  // a vector whose numbers no device rounds

  explicit operator bool() const { return data != nullptr; }
  // Of an f8 row: one for each block of columns.
  std::int64_t n_scales_of_row() const {
    return (n_cols + scales.block_cols - 1) / scales.block_cols;
  }
  const float* scales_of_row(std::int64_t row) const {
    return scales.data + (scales.first_row + row) / scales.block_rows * n_scales_of_row();
  }
  std::uint64_t n_bytes() const {
    return static_cast<std::uint64_t>(n_rows) * static_cast<std::uint64_t>(n_cols) * size_of(dtype);
  }
  // Rows `first` to first + n - 1 of a matrix.
  WeightView rows(std::int64_t first, std::int64_t n) const {
    if (!data) return {};
    STARATTN_CHECK(first >= 0 && n >= 0 && first + n <= n_rows);
    WeightView part = *this;
    part.data += static_cast<std::size_t>(first * n_cols) * size_of(dtype);
    part.n_rows = n;
    part.scales.first_row += first;
    return part;
  }
  // The same numbers of a vector.
  WeightView values(std::int64_t first, std::int64_t n) const {
    if (!data) return {};
    STARATTN_CHECK(n_rows == 1 && first >= 0 && n >= 0 && first + n <= n_cols);
    return {data + static_cast<std::size_t>(first) * size_of(dtype), dtype, 1, n};
  }
};

// Number i of a tensor that is not FP8.
float value_at(const WeightView& w, std::int64_t i);

// One expert of a mixture: a feed forward of its own.
struct Expert {
  WeightView gate_proj, up_proj, down_proj;                 // [width, hidden] x 2, [hidden, width]
  WeightView gate_bias = {}, up_bias = {}, down_bias = {};  // vectors, or absent
};

// How an expert's gate and up become one: g sigmoid(slope g) (u + shift), with g = min(gate, limit)
// and u = up, held between -limit and limit. As it stands here: silu(gate) * up.
struct GatedUnit {
  float slope = 1, shift = 0;
  float limit = std::numeric_limits<float>::infinity();

  bool is_swiglu() const { return *this == GatedUnit{}; }
  bool operator==(const GatedUnit&) const = default;
};

// How a router's products become shares of the experts: their softmax over all experts, or each
// one's sigmoid (DeepSeek-V3, arXiv 2412.19437), in fp32.
struct Routing {
  bool is_sigmoid = false;
  bool renormalise = false;  // then divided by their sum over the chosen, that of sigmoids + 1e-20
  float scale = 1;           // and multiplied by this

  bool operator==(const Routing&) const = default;
};

// Of a mixture's layer. y = x W^T + bias are the products.
struct Router {
  const WeightView& w;           // [n_experts, width]
  const WeightView& bias;        // [1, n_experts] or absent
  const WeightView& correction;  // [1, n_experts], exact, or absent: added to sigmoids to choose
  Routing routing = {};
};

// Which experts the rows of a mixture take, and how much of each; on the device, [n_rows,
// n_chosen]. A row's experts ascend.
struct ExpertChoice {
  std::int32_t* experts = nullptr;
  float* shares = nullptr;
  std::int64_t n_rows = 0;
  std::int64_t n_chosen = 0;
  // [order_size(n_rows * n_chosen)], or absent: what the backend notes of the order of all rows'
  // experts when it chooses them, for the same Product, so that it need not sort them later.
  std::int32_t* order = nullptr;

  // Two numbers of each place, three of each tile (kernels/experts.h), of which there may be nine
  // for eight places, and how many tiles there are.
  static constexpr std::int64_t order_size(std::int64_t n_places) { return 6 * n_places + 4; }
};

// Consecutive rows, columns or heads, from `first` on: what one rank has of them all.
struct Share {
  std::int64_t first = 0;
  std::int64_t count = 0;

  std::int64_t end() const { return first + count; }
};

// How the rows of a product may be handled.
enum class Product {
  chunk,  // phase 1: the caller always passes the same rows together; fastest (OpenBLAS, cuBLASLt)
  batch_invariant,  // phase 2: each row's bits are independent of the number of rows and of its
                    // place
};

// y = x W^T + bias; W [n_out, n_in], bias [1, n_out] or absent.
struct Projection {
  const WeightView& w;
  const WeightView& bias;
  Rows y;
};

// What Backend::rms_norm divides by and multiplies with.
struct RowNorm {
  const WeightView& weight;
  double eps;
};

// Which operation reads rows next. A product of few rows (Product::batch_invariant) may make them
// ready by itself: take their norm, or wait for other devices.
enum class Reader { any, product };

// Copies beside the operations: each way by itself, in order.
enum class CopyDirection { to_device, to_host };

// Rows with device memory of their own.
class RowBuffer {
 public:
  RowBuffer() = default;
  RowBuffer(Backend& backend, std::int64_t max_rows, std::int64_t width);

  Rows rows(std::int64_t n_rows) const { return rows(0, n_rows); }
  Rows rows(std::int64_t first_row, std::int64_t n_rows) const {
    STARATTN_CHECK(first_row >= 0 && n_rows >= 0 && first_row + n_rows <= max_rows_);
    return {memory_.data() + static_cast<std::size_t>(first_row) * row_bytes_, n_rows, width_};
  }

 private:
  std::int64_t max_rows_ = 0;
  std::int64_t width_ = 0;
  std::size_t row_bytes_ = 0;
  Buffer memory_;
};

// A Partial with device memory of its own: o | m | l in one piece, so that it travels as one.
class PartialBuffer {
 public:
  PartialBuffer() = default;
  PartialBuffer(Backend& backend, std::int64_t n_rows, const AttentionShape& shape);

  static std::size_t n_bytes(std::int64_t n_rows, const AttentionShape& shape) {
    return static_cast<std::size_t>(n_rows * shape.n_heads * (shape.head_dim + 2)) * sizeof(float);
  }
  Partial partial() const { return view(n_rows_); }
  Partial view(std::int64_t n_rows) const {
    STARATTN_CHECK(n_rows >= 0 && n_rows <= n_rows_);
    return over(memory_.data(), n_rows, n_heads_, head_dim_);
  }
  static Partial over(std::byte* data, std::int64_t n_rows, std::int64_t n_heads,
                      std::int64_t head_dim) {
    auto* o = reinterpret_cast<float*>(data);
    float* m = o + n_rows * n_heads * head_dim;
    return {o, m, m + n_rows * n_heads, n_rows};
  }
  std::byte* data() const { return memory_.data(); }

 private:
  std::int64_t n_rows_ = 0;
  std::int64_t n_heads_ = 0;
  std::int64_t head_dim_ = 0;
  Buffer memory_;
};

// Rows [first_row, first_row + n_rows) of a partial.
inline Partial slice(Partial partial, std::int64_t first_row, std::int64_t n_rows,
                     const AttentionShape& shape) {
  STARATTN_CHECK(first_row >= 0 && n_rows >= 0 && first_row + n_rows <= partial.n_rows);
  return {partial.o + first_row * shape.n_heads * shape.head_dim,
          partial.m + first_row * shape.n_heads, partial.l + first_row * shape.n_heads, n_rows};
}

}  // namespace starattn
