// SPDX-License-Identifier: Apache-2.0
// Products of few rows with a large matrix (phase 2): bound by reading the matrix once.
#pragma once

#include <cstdint>

#include "launch.h"
#include "peer_exchange.h"

namespace starattn::kernels {

struct ThinOutput {
  const void* w = nullptr;     // bf16 [n_out, n_in]; read before the kernel in front has ended
  const void* bias = nullptr;  // bf16 [n_out] or absent
  const void* plus = nullptr;  // bf16 [n_rows, n_out] or absent; may be y
  void* y = nullptr;           // [n_rows, n_out]
  std::int64_t n_out = 0;
  // Where w is FP8 (e4m3), in all outputs alike: a scale for each block of it, row-major fp32.
  const float* scales = nullptr;
  std::int64_t block_rows = 0, block_cols = 0;  // block_cols: n_in or more, or a multiple of 128
  std::int64_t first_row = 0;                   // of w in the first row of blocks
};

inline constexpr int kMaxThinOutputs = 3;
inline constexpr int kMostThinRows = 32;  // of x in one launch, but for thin_linear_sm90.h
// The columns of n_in belong to shares in turn, a run each; every share is summed by itself, and
// the shares in order. All kernels do so, or their bits would differ.
inline constexpr int kThinShares = 8, kThinRun = 128;

enum class ThinKind {
  bf16,   // each y = x w^T + bias + plus
  f32,    // the same, y fp32
  gated,  // of two outputs alike, without plus: the first y = silu(the first) * the second, bf16
};

// One x with up to three matrices, in one launch.
struct ThinOperands {
  const void* x = nullptr;  // bf16 [n_rows, n_in]
  std::int64_t n_rows = 0, n_in = 0;
  ThinKind kind = ThinKind::bf16;
  int n_outputs = 1;
  ThinOutput outputs[kMaxThinOutputs];
};

// Beside other devices.
struct ThinLinear : ThinOperands {
  PeerSend send;        // where y goes as well, of one output in bf16
  AwaitedRows awaited;  // x, where it is still to be made ready: its `rows` are x, and all of them
};

// fp32 accumulation over n_in in an order that depends on n_in alone: a row's bits are the same
// among any other rows. n_in: a multiple of 8, of 16 with FP8. Throws BadShape.
void thin_linear(const ThinLinear& product, Stream stream);

}  // namespace starattn::kernels
