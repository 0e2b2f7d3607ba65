// SPDX-License-Identifier: Apache-2.0
#include "model/shard.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {
namespace {

// The part of n things that rank `rank` of n_ranks has.
Share part_of(std::int64_t n, std::int64_t rank, std::int64_t n_ranks) {
  const std::int64_t first = n * rank / n_ranks;
  return {first, n * (rank + 1) / n_ranks - first};
}

std::vector<Share> columns(std::int64_t n, int n_ranks) {
  constexpr std::int64_t kUnit = 16;
  std::vector<Share> shares;
  for (int rank = 0; rank < n_ranks; ++rank) {
    const Share units = part_of((n + kUnit - 1) / kUnit, rank, n_ranks);
    const std::int64_t first = std::min(n, units.first * kUnit);
    shares.push_back({first, std::min(n, units.end() * kUnit) - first});
  }
  return shares;
}

HeadShare heads_of(const ModelConfig& config, std::int64_t rank, std::int64_t n_ranks) {
  const std::int64_t n_kv = config.n_kv_heads;
  const std::int64_t group = config.n_heads / n_kv;
  if (n_ranks <= n_kv) {
    const Share kv = part_of(n_kv, rank, n_ranks);
    return {{kv.first * group, kv.count * group}, kv};
  }
  // Several ranks a KV head: those from `first` to `end`.
  const std::int64_t kv_head = rank * n_kv / n_ranks;
  const std::int64_t first = (kv_head * n_ranks + n_kv - 1) / n_kv;
  const std::int64_t end = ((kv_head + 1) * n_ranks + n_kv - 1) / n_kv;
  const Share heads = part_of(group, rank - first, end - first);
  return {{kv_head * group + heads.first, heads.count}, {kv_head, heads.count > 0 ? 1 : 0}};
}

// What a matrix's columns are.
enum class Columns { q, kv, hidden, intermediate, of_expert, of_shared };

// Of the layer's matrices those that are large, alike ones of experts together.
template <typename Take>
void for_matrices(const LayerWeights& w, const Take& take) {
  const auto add = [&](const WeightView& matrix, Columns columns) {
    if (matrix) take(matrix, columns);
  };
  add(w.q_proj, Columns::q);
  add(w.k_proj, Columns::kv);
  add(w.v_proj, Columns::kv);
  add(w.o_proj, Columns::hidden);
  const Columns inner = w.router ? Columns::of_shared : Columns::intermediate;
  add(w.gate_proj, inner);
  add(w.up_proj, inner);
  add(w.down_proj, Columns::hidden);
  for (const Expert& expert : w.experts) add(expert.gate_proj, Columns::of_expert);
  for (const Expert& expert : w.experts) add(expert.up_proj, Columns::of_expert);
  for (const Expert& expert : w.experts) add(expert.down_proj, Columns::hidden);
}

}  // namespace

ShardPlan ShardPlan::make(const ModelConfig& config, int n_ranks) {
  STARATTN_CHECK(n_ranks >= 1 && config.n_heads % config.n_kv_heads == 0);
  ShardPlan plan;
  for (int rank = 0; rank < n_ranks; ++rank) plan.heads.push_back(heads_of(config, rank, n_ranks));
  plan.hidden = columns(config.hidden_size, n_ranks);
  plan.intermediate = columns(config.intermediate_size, n_ranks);
  plan.of_expert = columns(config.mixture.expert_size, n_ranks);
  plan.of_shared = columns(config.mixture.shared_size, n_ranks);
  plan.vocab = columns(config.vocab_size, n_ranks);
  return plan;
}

SharedModel shared_model(const ModelWeights& weights, const ShardPlan& plan,
                         std::int64_t head_dim) {
  std::vector<Share> q;
  std::vector<Share> kv;
  for (const HeadShare& share : plan.heads) {
    q.push_back({share.heads.first * head_dim, share.heads.count * head_dim});
    kv.push_back({share.kv_heads.first * head_dim, share.kv_heads.count * head_dim});
  }
  SharedModel model;
  for (const LayerWeights& w : weights.layers) {
    auto& layer = model.layers.emplace_back();
    for_matrices(w, [&](const WeightView& matrix, Columns columns) {
      layer.push_back({matrix, columns == Columns::q              ? q
                               : columns == Columns::kv           ? kv
                               : columns == Columns::hidden       ? plan.hidden
                               : columns == Columns::intermediate ? plan.intermediate
                               : columns == Columns::of_expert    ? plan.of_expert
                                                                  : plan.of_shared});
    });
  }
  model.lm_head = {weights.lm_head, plan.vocab};
  model.embedding = {weights.embedding, plan.vocab};
  return model;
}

std::uint64_t shared_bytes(const ModelWeights& weights, const SharedModel& model,
                           const Backend& backend, Rank rank) {
  std::uint64_t n_bytes = 0;
  for (const WeightView& weight : weights.all()) n_bytes += backend.bytes_in_memory(weight);
  const auto keep_rows = [&](const SharedMatrix& matrix) {
    const Share rows = matrix.rows[static_cast<std::size_t>(rank)];
    n_bytes -= backend.bytes_in_memory(matrix.whole);
    n_bytes += backend.bytes_in_memory(matrix.whole.rows(rows.first, rows.count));
    return backend.bytes_in_memory(matrix.whole);
  };
  keep_rows(model.lm_head);
  if (model.embedding.whole.data != model.lm_head.whole.data) keep_rows(model.embedding);
  std::uint64_t largest_layer = 0;
  for (const auto& layer : model.layers) {
    std::uint64_t whole = 0;
    for (const SharedMatrix& matrix : layer) whole += keep_rows(matrix);
    largest_layer = std::max(largest_layer, whole);
  }
  return n_bytes + 2 * largest_layer;
}

std::vector<std::vector<WeightView>> layer_matrices(const ModelWeights& weights) {
  std::vector<std::vector<WeightView>> layers;
  for (const LayerWeights& w : weights.layers) {
    auto& layer = layers.emplace_back();
    for_matrices(w, [&](const WeightView& matrix, Columns) { layer.push_back(matrix); });
  }
  return layers;
}

std::uint64_t streamed_bytes(const ModelWeights& weights, const Backend& backend) {
  std::uint64_t n_bytes = 0, largest = 0;
  for (const WeightView& weight : weights.all()) n_bytes += backend.bytes_in_memory(weight);
  for (const auto& layer : layer_matrices(weights)) {
    std::uint64_t whole = 0;
    for (const WeightView& matrix : layer) whole += backend.bytes_in_memory(matrix);
    n_bytes -= whole;
    largest = std::max(largest, whole);
  }
  return n_bytes + 2 * largest;
}

}  // namespace starattn
