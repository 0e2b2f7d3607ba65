// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.h"

#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace starattn {
namespace {

// Of q and of k, so that their products have the multiplier in place of 1 / sqrt(head_dim).
double scale_of_heads(const ModelConfig& config) {
  if (config.multipliers.attention == 0) return 1;
  return std::sqrt(config.multipliers.attention * std::sqrt(static_cast<double>(config.head_dim)));
}

Reader reader_of(Product product) {
  return product == Product::batch_invariant ? Reader::product : Reader::any;
}

std::vector<Rope> ropes_of(const ModelConfig& config) {
  std::vector<Rope> ropes;
  for (const RopeConfig& rope : config.ropes())
    ropes.emplace_back(rope, config.head_dim, scale_of_heads(config));
  return ropes;
}

// Of 32 bits.
std::int64_t n_numbers_of_choice(std::int64_t n_places) {
  return n_places == 0 ? 0 : 2 * n_places + ExpertChoice::order_size(n_places);
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const ModelWeights& weights, Backend& backend,
                 std::int64_t max_rows, FetchedLayers* fetched)
    : config_(&config),
      weights_(&weights),
      backend_(&backend),
      fetched_(fetched),
      ropes_(ropes_of(config)),
      max_rows_(max_rows),
      normed_(backend, max_rows, config.hidden_size),
      output_(backend, max_rows, config.hidden_size),
      gate_(backend, max_rows, config.widest_dense()),
      up_(backend, max_rows, config.widest_dense()),
      choice_(backend.allocate(
          static_cast<std::size_t>(n_numbers_of_choice(max_rows * config.mixture.n_chosen)) *
          sizeof(std::int32_t))) {
  for (const WeightView& weight : weights.all()) backend.load(weight);
}

RopeTable Decoder::rope_table(std::int64_t first_position, std::int64_t n_rows) const {
  std::vector<std::int64_t> positions(static_cast<std::size_t>(n_rows));
  std::iota(positions.begin(), positions.end(), first_position);
  return rope_table(positions);
}

RopeTable Decoder::rope_table(std::span<const std::int64_t> positions) const {
  const std::size_t n = positions.size();
  const auto half = static_cast<std::size_t>(config_->head_dim / 2);
  const std::vector<RopeConfig> configs = config_->ropes();
  const bool has_own_q = config_->scales_queries();
  std::vector<float> table;
  for (std::size_t i = 0; i < ropes_.size(); ++i) {
    const std::size_t begin = table.size(), size = n * half;
    table.resize(begin + 2 * size);
    const std::span<float> cos = std::span(table).subspan(begin, size);
    const std::span<float> sin = std::span(table).subspan(begin + size);
    for (std::size_t row = 0, end = 0; row < n; row = end) {  // a run of positions at a time
      for (end = row + 1; end < n && positions[end] == positions[end - 1] + 1;) ++end;
      ropes_[i].table(positions[row], static_cast<std::int64_t>(end - row),
                      cos.subspan(row * half, (end - row) * half),
                      sin.subspan(row * half, (end - row) * half));
    }
    for (std::size_t at = 0; has_own_q && at < 2 * size; ++at)
      table.push_back(table[begin + at] * query_scale(configs[i], positions[at / half % n]));
  }
  RopeTable result{backend_->allocate(table.size() * sizeof(float)), std::ssize(positions),
                   config_->head_dim / 2, has_own_q};
  backend_->upload_later(std::as_bytes(std::span(table)), result.memory.data());
  return result;
}

void Decoder::embed(std::span<const Token> tokens, Rows x) {
  backend_->embed_tokens(tokens, weights_->embedding, x);
  scale_embedded(x);
}

void Decoder::embed(const Token* tokens, Rows x) {
  backend_->embed(tokens, weights_->embedding, x);
  scale_embedded(x);
}

void Decoder::scale_embedded(Rows x) {
  const double factor = config_->multipliers.embedding / config_->multipliers.residual;
  if (factor != 1) backend_->scale(x, static_cast<float>(factor));
}

const LayerWeights& Decoder::enter(std::int64_t layer) {
  if (fetched_) fetched_->use(layer);
  return weights_->layers[static_cast<std::size_t>(layer)];
}

void Decoder::project_kv(std::int64_t layer, Rows x, const Angles& angles, Rows k, Rows v,
                         Product product) {
  const LayerWeights& w = enter(layer);
  const Rows normed = normalise(x, w.input_norm);
  const Projection projections[] = {{w.k_proj, w.k_bias, k}, {w.v_proj, w.v_bias, v}};
  backend_->linear_all(normed, projections, product);
  normalise_heads(k, w.k_norm);
  backend_->rope(k, config_->head(), angles.cos, angles.sin);
}

void Decoder::project_qkv(std::int64_t layer, Rows x, const Angles& angles, Rows q, Rows k, Rows v,
                          Product product) {
  const LayerWeights& w = enter(layer);
  const Rows normed = normalise(x, w.input_norm, reader_of(product));
  project_heads(w, normed, angles, q, k, v, product);
  if (!config_->norms_all_heads) return;
  normalise_heads(q, w.q_norm);
  normalise_heads(k, w.k_norm);
  rotate(q, k, angles);
}

void Decoder::project_heads(const LayerWeights& w, Rows normed, const Angles& angles, Rows q,
                            Rows k, Rows v, Product product) {
  const Projection projections[] = {
      {w.q_proj, w.q_bias, q}, {w.k_proj, w.k_bias, k}, {w.v_proj, w.v_bias, v}};
  backend_->linear_all(normed, projections, product);
  if (config_->norms_all_heads) return;
  normalise_heads(q, w.q_norm);
  normalise_heads(k, w.k_norm);
  rotate(q, k, angles);
}

void Decoder::rotate(Rows q, Rows k, const Angles& angles) {
  if (angles.q_cos == angles.cos)
    return backend_->rope_both(q, k, config_->head(), angles.cos, angles.sin);
  backend_->rope(q, config_->head(), angles.q_cos, angles.q_sin);
  backend_->rope(k, config_->head(), angles.cos, angles.sin);
}

void Decoder::merge_sinks(std::int64_t layer, Partial attended) {
  if (has_sinks())
    backend_->merge_sinks(attended, weights_->layers[static_cast<std::size_t>(layer)].sinks,
                          attention_shape());
}

void Decoder::merge_sinks(std::int64_t layer, PartialTree& attended) {
  if (!has_sinks()) return;
  attended = {{backend_->merge_tree(attended, attention_shape())}, {}, 0};
  merge_sinks(layer, attended.parts[0]);
}

void Decoder::add_attention_output(std::int64_t layer, Rows attended, Rows x, Product product) {
  const LayerWeights& w = weights_->layers[static_cast<std::size_t>(layer)];
  add_output(x, attended, w.o_proj, w.o_bias, w.attention_output_norm, product);
}

void Decoder::add_feed_forward(std::int64_t layer, Rows x, Product product) {
  const LayerWeights& w = weights_->layers[static_cast<std::size_t>(layer)];
  const Rows normed =
      normalise(x, w.post_attention_norm, w.router ? Reader::any : reader_of(product));
  if (w.router) {
    const ExpertChoice choice = choose_experts(w, normed, product);
    backend_->add_experts(x, normed, w.experts, config_->mixture.unit, choice, product);
  }
  const std::int64_t inner = config_->dense_size(layer);
  if (inner == 0) return;
  const Rows gate{gate_.rows(x.n_rows).data, x.n_rows, inner};
  const Rows up{up_.rows(x.n_rows).data, x.n_rows, inner};
  backend_->linear_gated(normed, {w.gate_proj, w.gate_bias, gate}, {w.up_proj, w.up_bias, up},
                         product);
  if (w.shared_gate) backend_->scale_by_gate(gate, normed, w.shared_gate);
  add_output(x, gate, w.down_proj, w.down_bias, w.feed_forward_output_norm, product);
}

void Decoder::add_output(Rows x, Rows rows, const WeightView& w, const WeightView& bias,
                         const WeightView& norm, Product product) {
  const Rows output = output_.rows(x.n_rows);
  if (!norm) return backend_->add_linear(x, rows, w, bias, product, output);
  backend_->linear(rows, {w, bias, output}, product);
  backend_->rms_norm(output, norm, config_->rms_norm_eps, output);
  backend_->add(x, output);
}

ExpertChoice Decoder::choose_experts(const LayerWeights& w, Rows normed, Product product) {
  const MixtureConfig& mixture = config_->mixture;
  auto* experts = reinterpret_cast<std::int32_t*>(choice_.data());
  const std::int64_t n_places = max_rows_ * mixture.n_chosen;
  auto* shares = reinterpret_cast<float*>(experts + n_places);
  const ExpertChoice choice{experts, shares, normed.n_rows, mixture.n_chosen,
                            experts + 2 * n_places};
  backend_->choose_experts(normed, {w.router, w.router_bias, w.correction, mixture.routing},
                           product, choice);
  return choice;
}

void Decoder::logits(Rows x, std::span<float> logits) {
  backend_->linear_to_host(normalise_for_head(x), weights_->lm_head, logits);
}

void Decoder::next_tokens(Rows x, std::span<const Draw> draws, Token* tokens) {
  backend_->next_tokens(normalise_for_head(x), weights_->lm_head, draws, tokens);
}

Rows Decoder::normalise(Rows x, const WeightView& weight, Reader reader) {
  STARATTN_CHECK(x.n_rows <= max_rows_);
  if (!weight) return x;
  const Rows normed = normed_.rows(x.n_rows);
  backend_->rms_norm(x, weight, norm_eps(), normed, reader);
  return normed;
}

Rows Decoder::normalise_for_head(Rows x) {
  const Rows normed = normalise(x, weights_->final_norm);
  if (config_->multipliers.logits != 1)
    backend_->scale(normed, static_cast<float>(config_->multipliers.logits));
  return normed;
}

void Decoder::normalise_heads(Rows x, const WeightView& weight) {
  if (!weight) return;
  const Rows heads{x.data, x.n_rows * x.width / weight.n_cols, weight.n_cols};
  backend_->rms_norm(heads, weight, config_->rms_norm_eps, heads);
}

}  // namespace starattn
