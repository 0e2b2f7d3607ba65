// SPDX-License-Identifier: Apache-2.0
// The kernels behind C names, for scripts/gpu_bench.py (ctypes). Returns 0, or 1 with the
// message in starattn_last_error().
#include <cstring>
#include <exception>
#include <string>

#include "attention.h"
#include "elementwise.h"
#include "f8_kv.h"
#include "f8_linear.h"
#include "next_token.h"
#include "recall.h"
#include "thin_linear.h"

namespace {

std::string last_error;

template <typename Call>
int guarded(Call call) {
  try {
    call();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

}  // namespace

extern "C" {

using namespace starattn::kernels;

const char* starattn_last_error() {
  return last_error.c_str();
}

int starattn_prefill_attention(const AttentionInput* input, const AttentionOutput* output,
                               void* stream) {
  return guarded([&] { prefill_attention(*input, *output, static_cast<Stream>(stream)); });
}

int starattn_partial_workspace(const AttentionInput* input, std::size_t* n_bytes) {
  return guarded([&] { *n_bytes = partial_attention_workspace(*input); });
}

int starattn_partial_attention(const AttentionInput* input, const Partial* result, void* workspace,
                               void* stream) {
  return guarded(
      [&] { partial_attention(*input, *result, workspace, static_cast<Stream>(stream)); });
}

int starattn_block_workspace(const AttentionInput* input, std::size_t* n_bytes) {
  return guarded([&] { *n_bytes = block_attention_workspace(*input); });
}

// Without merges: one result for each segment.
int starattn_block_attention(const AttentionInput* input, const Partial* results, void* workspace,
                             void* stream) {
  return guarded([&] {
    block_attention(*input, nullptr, 0, results, workspace, static_cast<Stream>(stream));
  });
}

int starattn_narrow_rows(const void* x, const F8Rows* to, void* stream) {
  return guarded([&] { narrow_rows(x, *to, static_cast<Stream>(stream)); });
}

int starattn_lay_out_exponents(const F8Rows* k, const F8Rows* v, void* to, void* stream) {
  return guarded([&] { lay_out_exponents(*k, *v, to, static_cast<Stream>(stream)); });
}

int starattn_widen_rows(const F8Rows* from, void* to, void* stream) {
  return guarded([&] { widen_rows(*from, to, static_cast<Stream>(stream)); });
}

int starattn_rms_norm(const void* x, const void* weight, float eps, std::int64_t n_rows,
                      std::int64_t width, void* y, void* stream) {
  return guarded([&] { rms_norm(x, weight, eps, n_rows, width, y, static_cast<Stream>(stream)); });
}

int starattn_rotate_rows(void* x, const float* cos, const float* sin, std::int64_t n_rows,
                         int n_heads, int head_dim, void* stream) {
  return guarded([&] {
    rotate_rows({x, n_heads}, {}, cos, sin, n_rows, head_dim, head_dim,
                static_cast<Stream>(stream));
  });
}

int starattn_swiglu(const void* gate, const void* up, void* y, std::int64_t n, void* stream) {
  return guarded([&] { swiglu(gate, up, y, n, static_cast<Stream>(stream)); });
}

int starattn_next_tokens(float* logits, std::int64_t n_rows, std::int64_t n, const Draw* draws,
                         std::int32_t* token, void* stream) {
  return guarded(
      [&] { next_tokens(logits, n_rows, n, draws, nullptr, token, static_cast<Stream>(stream)); });
}

int starattn_thin_linear(const ThinOperands* product, void* stream) {
  return guarded([&] { thin_linear(ThinLinear{*product, {}, {}}, static_cast<Stream>(stream)); });
}

int starattn_round_rows(const void* x, const RoundedRows* to, void* stream) {
  return guarded([&] { round_rows(x, *to, static_cast<Stream>(stream)); });
}

int starattn_f8_linear(const F8Linear* product, void* stream) {
  return guarded([&] { f8_linear(*product, static_cast<Stream>(stream)); });
}

int starattn_log_sum_exp(const AskingRows* asking, const KvSegment* keys, float* z, void* stream) {
  return guarded([&] { log_sum_exp(*asking, *keys, {}, z, static_cast<Stream>(stream)); });
}

int starattn_score_workspace(const AskingRows* asking, std::size_t* n_bytes) {
  return guarded([&] { *n_bytes = score_workspace(*asking); });
}

int starattn_score_keys(const AskingRows* asking, const float* z, const KvSegment* keys,
                        float* scores, void* workspace, void* stream) {
  return guarded(
      [&] { score_keys(*asking, z, *keys, scores, workspace, static_cast<Stream>(stream)); });
}

int starattn_choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                         std::int32_t* best, float* best_scores, void* stream) {
  return guarded([&] {
    choose_best(scores, n_scores, n_best, best, best_scores, static_cast<Stream>(stream));
  });
}

}  // extern "C"
