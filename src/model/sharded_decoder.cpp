// SPDX-License-Identifier: Apache-2.0
#include "model/sharded_decoder.h"

#include <algorithm>
#include <utility>

namespace starattn {
namespace {

LayerWeights columns_of(const LayerWeights& whole, const HeadShare& share, Share hidden,
                        Share inner, Share of_expert, std::int64_t head_dim) {
  const Share q{share.heads.first * head_dim, share.heads.count * head_dim};
  const Share kv{share.kv_heads.first * head_dim, share.kv_heads.count * head_dim};
  const auto matrix = [](const WeightView& w, Share s) { return w.rows(s.first, s.count); };
  const auto bias = [](const WeightView& w, Share s) { return w.values(s.first, s.count); };
  LayerWeights w = whole;  // the norms and the router
  w.q_proj = matrix(whole.q_proj, q);
  w.k_proj = matrix(whole.k_proj, kv);
  w.v_proj = matrix(whole.v_proj, kv);
  w.q_bias = bias(whole.q_bias, q);
  w.k_bias = bias(whole.k_bias, kv);
  w.v_bias = bias(whole.v_bias, kv);
  w.sinks = bias(whole.sinks, share.heads);
  w.o_proj = matrix(whole.o_proj, hidden);
  w.o_bias = bias(whole.o_bias, hidden);
  w.gate_proj = matrix(whole.gate_proj, inner);
  w.up_proj = matrix(whole.up_proj, inner);
  w.gate_bias = bias(whole.gate_bias, inner);
  w.up_bias = bias(whole.up_bias, inner);
  w.down_proj = matrix(whole.down_proj, hidden);
  w.down_bias = bias(whole.down_bias, hidden);
  for (Expert& expert : w.experts) {
    expert = {matrix(expert.gate_proj, of_expert), matrix(expert.up_proj, of_expert),
              matrix(expert.down_proj, hidden),    bias(expert.gate_bias, of_expert),
              bias(expert.up_bias, of_expert),     bias(expert.down_bias, hidden)};
  }
  return w;
}

}  // namespace

ShardedDecoder::ShardedDecoder(Decoder& decoder, const ModelWeights& weights, ShardPlan plan,
                               Rank rank, std::int64_t max_rows)
    : decoder_(&decoder),
      plan_(std::move(plan)),
      rank_(static_cast<std::size_t>(rank)),
      max_rows_(max_rows),
      lm_head_(weights.lm_head.rows(vocab().first, vocab().count)),
      up_(backend(), max_rows, widest_inner()),
      scratch_(backend(), max_rows, hidden().count) {
  STARATTN_CHECK(max_rows <= decoder.max_rows());
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    layers_.push_back(columns_of(weights.layers[i], plan_.heads[rank_], hidden(),
                                 inner(static_cast<std::int64_t>(i)), of_expert(),
                                 config().head_dim));
  }
}

std::int64_t ShardedDecoder::widest_inner() const {
  std::int64_t widest = 0;
  for (std::int64_t i = 0; i < config().n_layers; ++i) widest = std::max(widest, inner(i).count);
  return widest;
}

AttentionShape ShardedDecoder::attention_shape() const {
  const HeadShare& mine = plan_.heads[rank_];
  return {mine.heads.count, mine.kv_heads.count, config().head_dim};
}

void ShardedDecoder::project_qkv(std::int64_t i, Rows normed, const Angles& angles, Rows q, Rows k,
                                 Rows v) {
  if (q.width == 0) return;
  decoder_->project_heads(layer(i), normed, angles, q, k, v, Product::batch_invariant);
}

void ShardedDecoder::rotate(Rows q, Rows k, const Angles& angles) {
  if (q.width > 0) decoder_->rotate(q, k, angles);
}

void ShardedDecoder::merge_sinks(std::int64_t i, PartialTree& attended) {
  if (!decoder_->has_sinks()) return;
  const AttentionShape shape = attention_shape();
  attended = {{backend().merge_tree(attended, shape)}, {}, 0};
  backend().merge_sinks(attended.parts[0], layer(i).sinks, shape);
}

void ShardedDecoder::add_attention_output(std::int64_t i, Rows attended, Rows mine) {
  const LayerWeights& w = layer(i);
  add_output(attended, w.o_proj, w.o_bias, mine);
}

void ShardedDecoder::add_output(Rows rows, const WeightView& w, const WeightView& bias, Rows mine) {
  if (mine.width == 0) return;
  if (config().norms_outputs)
    return backend().linear(rows, {w, bias, mine}, Product::batch_invariant);
  backend().add_linear(mine, rows, w, bias, Product::batch_invariant, scratch_.rows(mine.n_rows));
}

void ShardedDecoder::gate_experts(std::int64_t i, Rows normed, Rows gated) {
  const LayerWeights& w = layer(i);
  choice_ = decoder_->choose_experts(w, normed, Product::batch_invariant);
  if (gated.width == 0) return;
  backend().gate_experts(normed, w.experts, config().mixture.unit, choice_,
                         Product::batch_invariant, gated);
}

void ShardedDecoder::add_experts(std::int64_t i, Rows gated, Rows mine) {
  if (mine.width == 0) return;
  backend().add_gated_experts(mine, gated, layer(i).experts, choice_, Product::batch_invariant);
}

void ShardedDecoder::gate(std::int64_t i, Rows normed, Rows gated) {
  if (gated.width == 0) return;
  const LayerWeights& w = layer(i);
  const Rows up{up_.rows(normed.n_rows).data, normed.n_rows, gated.width};
  backend().linear_gated(normed, {w.gate_proj, w.gate_bias, gated}, {w.up_proj, w.up_bias, up},
                         Product::batch_invariant);
}

void ShardedDecoder::add_down(std::int64_t i, Rows normed, Rows gated, Rows mine) {
  if (mine.width == 0) return;
  const LayerWeights& w = layer(i);
  if (w.shared_gate) backend().scale_by_gate(gated, normed, w.shared_gate);
  add_output(gated, w.down_proj, w.down_bias, mine);
}

void ShardedDecoder::logits(Rows x, float* logits) {
  if (lm_head_.n_rows == 0) return;
  backend().linear_f32(decoder_->normalise_for_head(x), lm_head_, logits);
}

}  // namespace starattn
