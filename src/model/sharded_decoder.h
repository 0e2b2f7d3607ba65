// SPDX-License-Identifier: Apache-2.0
// One rank's part of the network in phase 2 where ranks share out the weights: its columns of each
// product, for all rows of a step. Between two products the ranks exchange columns, which is the
// caller's business (star/sharded_forward), as is attention.
#pragma once

#include <span>
#include <vector>

#include "base/rank.h"
#include "model/decoder.h"
#include "model/shard.h"

namespace starattn {

class ShardedDecoder {
 public:
  // rank: whose of the plan's shares. Up to max_rows rows at a time. All arguments must outlive
  // this.
  ShardedDecoder(Decoder& decoder, const ModelWeights& weights, ShardPlan plan, Rank rank,
                 std::int64_t max_rows);

  const ModelConfig& config() const { return decoder_->config(); }
  Backend& backend() const { return decoder_->backend(); }
  std::int64_t max_rows() const { return max_rows_; }
  const ShardPlan& plan() const { return plan_; }
  std::size_t rank() const { return rank_; }
  Share heads() const { return plan_.heads[rank_].heads; }
  Share kv_heads() const { return plan_.heads[rank_].kv_heads; }
  Share hidden() const { return plan_.hidden[rank_]; }
  Share of_expert() const { return plan_.of_expert[rank_]; }
  // Of the dense part of a layer's feed forward (ModelConfig::dense_size), and of the widest.
  Share inner(std::int64_t layer) const { return inner_shares(layer)[rank_]; }
  std::span<const Share> inner_shares(std::int64_t layer) const {
    return config().is_mixture(layer) ? plan_.of_shared : plan_.intermediate;
  }
  std::int64_t widest_inner() const;
  Share vocab() const { return plan_.vocab[rank_]; }
  AttentionShape attention_shape() const;  // of this rank's heads
  std::int64_t q_width() const { return attention_shape().n_heads * config().head_dim; }
  std::int64_t kv_width() const { return attention_shape().n_kv_heads * config().head_dim; }

  RopeTable rope_table(std::span<const std::int64_t> positions) const {
    return decoder_->rope_table(positions);
  }
  void embed(const Token* tokens, Rows x) { decoder_->embed(tokens, x); }
  // Those in front of the two halves of a layer, through which the residual stream goes, and where
  // its rows lie behind either. Good until the next logits.
  RowNorm input_norm(std::int64_t i) const { return {layer(i).input_norm, decoder_->norm_eps()}; }
  RowNorm feed_forward_norm(std::int64_t i) const {
    return {layer(i).post_attention_norm, decoder_->norm_eps()};
  }
  Rows normed_rows(std::int64_t n_rows) const { return decoder_->normed_rows(n_rows); }
  // Those behind them (ModelConfig::norms_outputs), and those of all ranks' heads of q and of k at
  // once (norms_all_heads); absent elsewhere.
  RowNorm attention_output_norm(std::int64_t i) const {
    return {layer(i).attention_output_norm, config().rms_norm_eps};
  }
  RowNorm feed_forward_output_norm(std::int64_t i) const {
    return {layer(i).feed_forward_output_norm, config().rms_norm_eps};
  }
  RowNorm q_norm(std::int64_t i) const { return {layer(i).q_norm, config().rms_norm_eps}; }
  RowNorm k_norm(std::int64_t i) const { return {layer(i).k_norm, config().rms_norm_eps}; }
  // Of rows behind the input norm [n_rows, hidden]: q [n_rows, q_width], k and v [n_rows, kv_width]
  // of this rank's heads, RoPE applied; but where norms are of all heads, RoPE comes behind them.
  void project_qkv(std::int64_t layer, Rows normed, const Angles& angles, Rows q, Rows k, Rows v);
  void rotate(Rows q, Rows k, const Angles& angles);
  bool has_sinks() const { return decoder_->has_sinks(); }
  void merge_sinks(std::int64_t layer, PartialTree& attended);  // of this rank's heads
  // mine [n_rows, hidden().count]: this rank's columns of x, to which its columns of the output
  // projection are added; or with a norm behind that, these columns alone, whatever was in mine.
  // attended [n_rows, n_heads * head_dim] of all heads.
  void add_attention_output(std::int64_t layer, Rows attended, Rows mine);
  // The same for the second half of the layer, of rows behind its norm. Its experts, in a mixture:
  // gated [n_rows * n_chosen, of_expert().count], in the order of Backend::gate_experts(), then, of
  // all ranks' gated [n_rows * n_chosen, expert_size], the sum. Every rank chooses the same
  // experts, for which it has the whole router.
  void gate_experts(std::int64_t layer, Rows normed, Rows gated);
  void add_experts(std::int64_t layer, Rows gated, Rows mine);
  // And its dense part: gated [n_rows, inner().count], then, of all ranks' gated [n_rows,
  // dense_size], which are free to use, the sum.
  void gate(std::int64_t layer, Rows normed, Rows gated);
  void add_down(std::int64_t layer, Rows normed, Rows gated, Rows mine);
  // logits [n_rows, vocab().count] fp32, on the device.
  void logits(Rows x, float* logits);

 private:
  const LayerWeights& layer(std::int64_t i) const { return layers_[static_cast<std::size_t>(i)]; }
  void add_output(Rows rows, const WeightView& w, const WeightView& bias, Rows mine);

  Decoder* decoder_;
  ShardPlan plan_;
  std::size_t rank_;
  std::int64_t max_rows_;
  std::vector<LayerWeights> layers_;  // this rank's columns
  WeightView lm_head_;
  ExpertChoice choice_;  // of the layer's rows, between gate_experts() and add_experts()
  RowBuffer up_;         // [max_rows, widest_inner()]
  RowBuffer scratch_;    // [max_rows, hidden().count]
};

}  // namespace starattn
