// SPDX-License-Identifier: Apache-2.0
// The transformer between its attention calls: embedding, the two halves of a decoder layer, the LM
// head. What the rows attend to is the caller's business (star/encode, star/answer).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/rope.h"
#include "model/weights.h"

namespace starattn {

// cos and sin of some rows' positions, on the device: [n_rows, head_dim / 2] each, fp32. Those of q
// are the same where its scale does not depend on the position.
struct Angles {
  const float *cos = nullptr, *sin = nullptr;
  const float *q_cos = nullptr, *q_sin = nullptr;
};

// Those of each RoPE that the model's layers have (ModelConfig::ropes).
struct RopeTable {
  Buffer memory;  // for each of them cos | sin, or cos | sin | q_cos | q_sin
  std::int64_t n_rows = 0;
  std::int64_t half = 0;  // head_dim / 2
  bool has_own_q = false;

  // Of a layer's RoPE, from the table's row `first_row` on.
  Angles angles(const LayerConfig& layer, std::int64_t first_row = 0) const {
    const std::int64_t n_parts = has_own_q ? 4 : 2;
    const std::int64_t first = layer.has_other_rope ? n_parts : 0;
    const auto part = [&](std::int64_t i) {
      return reinterpret_cast<const float*>(memory.data()) +
             ((first + i) * n_rows + first_row) * half;
    };
    return {part(0), part(1), part(n_parts - 2), part(n_parts - 1)};
  }
};

class Decoder {
 public:
  // Up to max_rows rows at a time. fetched: where the device keeps a part of the layers only. All
  // arguments must outlive the decoder.
  Decoder(const ModelConfig& config, const ModelWeights& weights, Backend& backend,
          std::int64_t max_rows, FetchedLayers* fetched = nullptr);

  const ModelConfig& config() const { return *config_; }
  Backend& backend() const { return *backend_; }
  std::int64_t max_rows() const { return max_rows_; }
  AttentionShape attention_shape() const {
    return {config_->n_heads, config_->n_kv_heads, config_->head_dim};
  }
  RopeTable rope_table(std::int64_t first_position, std::int64_t n_rows) const;
  RopeTable rope_table(std::span<const std::int64_t> positions) const;

  // x [n_rows, hidden] is the residual stream, divided by the residual multiplier: so each half of
  // a layer adds to it as it is, and the norms undo it.
  void embed(std::span<const Token> tokens, Rows x);
  void embed(const Token* tokens, Rows x);  // on the device [n_rows]
  // k, v [n_rows, kv_width] of the rows, RoPE applied to k.
  void project_kv(std::int64_t layer, Rows x, const Angles& angles, Rows k, Rows v,
                  Product product);
  // The same and q [n_rows, q_width], RoPE applied.
  void project_qkv(std::int64_t layer, Rows x, const Angles& angles, Rows q, Rows k, Rows v,
                   Product product);
  // The same of rows behind the input norm, and of as many heads as `layer` and the rows have; but
  // for norms of all heads at once, which are the caller's, and then RoPE as well.
  void project_heads(const LayerWeights& layer, Rows normed, const Angles& angles, Rows q, Rows k,
                     Rows v, Product product);
  void rotate(Rows q, Rows k, const Angles& angles);
  // Where heads have sinks, attention is not finished before these are merged into it.
  bool has_sinks() const { return config_->has_sinks; }
  bool fetches_layers() const { return fetched_ != nullptr; }
  void merge_sinks(std::int64_t layer, Partial attended);
  void merge_sinks(std::int64_t layer, PartialTree& attended);
  void add_attention_output(std::int64_t layer, Rows attended, Rows x, Product product);
  void add_feed_forward(std::int64_t layer, Rows x, Product product);
  // In a mixture: the experts of rows behind the norm. Good until the next call.
  ExpertChoice choose_experts(const LayerWeights& layer, Rows normed, Product product);
  // x behind one of the model's norms, as it is where the layer has none there, and behind the last
  // one as the LM head takes it. Good until the next call of any of these.
  Rows normalise(Rows x, const WeightView& weight, Reader reader = Reader::any);
  Rows normed_rows(std::int64_t n_rows) const { return normed_.rows(n_rows); }  // where they lie
  double norm_eps() const {
    const double residual = config_->multipliers.residual;
    return config_->rms_norm_eps / (residual * residual);
  }
  Rows normalise_for_head(Rows x);
  // fp32 on the host, [n_rows, vocab].
  void logits(Rows x, std::span<float> logits);
  // The token that each row's draw finds in them. draws [n_rows]; tokens [n_rows], on the device.
  void next_tokens(Rows x, std::span<const Draw> draws, Token* tokens);

 private:
  void scale_embedded(Rows x);
  const LayerWeights& enter(std::int64_t layer);  // whose matrices are whole from here on
  // q or k, in place, where there is such a norm: each head of it, or all at once.
  void normalise_heads(Rows x, const WeightView& weight);
  // x += rows w^T + bias, behind a norm if there is one.
  void add_output(Rows x, Rows rows, const WeightView& w, const WeightView& bias,
                  const WeightView& norm, Product product);

  const ModelConfig* config_;
  const ModelWeights* weights_;
  Backend* backend_;
  FetchedLayers* fetched_;
  std::vector<Rope> ropes_;  // ModelConfig::ropes
  std::int64_t max_rows_;
  RowBuffer normed_;  // [max_rows, hidden]
  RowBuffer output_;  // [max_rows, hidden]
  RowBuffer gate_;    // [max_rows, ModelConfig::widest_dense()]
  RowBuffer up_;      // the same
  Buffer choice_;     // of max_rows rows: experts | shares | order
};

}  // namespace starattn
