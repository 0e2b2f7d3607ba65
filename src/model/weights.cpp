// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "model/made_fp8.h"
#include "model/packed_experts.h"
#include "model/random_weights.h"
#include "model/weight_files.h"

namespace starattn {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "embed_tokens.weight";

// What stands in front of the names of a model's tensors: they may be the text part of something
// larger. The second is that of transformers 5, the third that of transformers 4.
constexpr const char* kPrefixes[] = {"model.", "model.language_model.", "language_model.model."};

std::string prefix_of(const WeightSource& source) {
  for (const char* prefix : kPrefixes)
    if (source.has(std::string(prefix) + kEmbedding)) return prefix;
  return kPrefixes[0];
}

std::string head_of(const WeightSource& source) {
  const std::string nested = std::string("language_model.") + kHead;
  return source.has(nested) ? nested : kHead;
}

// Devices multiply with all experts of a layer in one way.
void mark_mixed(std::vector<Expert>& experts) {
  constexpr WeightView Expert::*kKinds[] = {&Expert::gate_proj, &Expert::up_proj,
                                            &Expert::down_proj};
  const bool are_f8 = std::ranges::all_of(experts, [&](const Expert& expert) {
    return std::ranges::all_of(kKinds,
                               [&](auto kind) { return (expert.*kind).dtype == Dtype::f8; });
  });
  for (Expert& expert : experts)
    for (const auto kind : kKinds) (expert.*kind).is_beside_wider = !are_f8;
}

// As Mixtral's own files name them. prefix: "model.layers.0.block_sparse_moe.experts."
std::vector<Expert> numbered_experts(WeightSource& source, const ModelConfig& c,
                                     const std::string& prefix) {
  const std::int64_t size = c.mixture.expert_size;
  std::vector<Expert> experts;
  for (std::int64_t e = 0; e < c.mixture.n_experts; ++e) {
    const std::string expert = fmt::format("{}{}.", prefix, e);
    experts.push_back({source.matrix(expert + "w1.weight", size, c.hidden_size),
                       source.matrix(expert + "w3.weight", size, c.hidden_size),
                       source.matrix(expert + "w2.weight", c.hidden_size, size)});
  }
  return experts;
}

void add_mixture(WeightSource& source, const ModelConfig& c, const std::string& layer,
                 LayerWeights& w) {
  // Quark leaves Mixtral with the names that transformers has in memory, and llm-compressor only
  // its experts.
  const bool is_sparse_block = (c.family == Family::mixtral || c.family == Family::minimax_m2) &&
                               !source.has(layer + "mlp.gate.weight");
  const std::string mixture = layer + (is_sparse_block ? "block_sparse_moe." : "mlp.");
  const std::string router = mixture + (c.mixture.has_biases ? "router" : "gate");
  const std::string experts = mixture + "experts.";
  w.router = source.matrix(router + ".weight", c.mixture.n_experts, c.hidden_size);
  if (c.mixture.has_biases) w.router_bias = source.vector(router + ".bias", c.mixture.n_experts);
  const bool are_numbered = is_sparse_block && !source.has(experts + "0.gate_proj.weight");
  w.experts = are_numbered ? numbered_experts(source, c, experts)
                           : source.experts(experts, c.mixture, c.hidden_size);
  mark_mixed(w.experts);
  if (c.mixture.routing.is_sigmoid) {
    const std::string owner = c.family == Family::glm4_moe ? router + "." : mixture;
    w.correction = source.vector(owner + "e_score_correction_bias", c.mixture.n_experts);
    w.correction.is_exact = true;  // bf16 would choose others
  }
  if (c.mixture.weighs_shared) {
    w.shared_gate = source.matrix(mixture + "shared_expert_gate.weight", 1, c.hidden_size);
    w.shared_gate.is_beside_wider = true;
  }
}

LayerWeights layer_from(WeightSource& source, const ModelConfig& c, const std::string& prefix,
                        std::int64_t i) {
  const std::int64_t hidden = c.hidden_size;
  const std::int64_t inner = c.dense_size(i);
  const std::string layer = fmt::format("{}layers.{}.", prefix, i);
  const auto norm = [&](const char* name, std::int64_t n) {
    return source.vector(layer + name + ".weight", n);
  };
  const auto matrix = [&](const std::string& name, std::int64_t n_out, std::int64_t n_in) {
    return source.matrix(layer + name + ".weight", n_out, n_in);
  };
  const auto bias = [&](bool present, const char* name, std::int64_t n) {
    return present ? source.vector(layer + name + ".bias", n) : WeightView{};
  };

  LayerWeights w;
  if (!c.norms_outputs) w.input_norm = norm("input_layernorm", hidden);
  if (c.family == Family::phi3) {
    const WeightView qkv = matrix("self_attn.qkv_proj", c.q_width() + 2 * c.kv_width(), hidden);
    // The first part last: it takes the name of the whole.
    w.v_proj = source.rows(qkv, c.q_width() + c.kv_width(), c.kv_width());
    w.k_proj = source.rows(qkv, c.q_width(), c.kv_width());
    w.q_proj = source.rows(qkv, 0, c.q_width());
  } else {
    w.q_proj = matrix("self_attn.q_proj", c.q_width(), hidden);
    w.k_proj = matrix("self_attn.k_proj", c.kv_width(), hidden);
    w.v_proj = matrix("self_attn.v_proj", c.kv_width(), hidden);
  }
  w.q_bias = bias(c.qkv_bias, "self_attn.q_proj", c.q_width());
  w.k_bias = bias(c.qkv_bias, "self_attn.k_proj", c.kv_width());
  w.v_bias = bias(c.qkv_bias, "self_attn.v_proj", c.kv_width());
  if (c.qk_norm) {
    w.q_norm = norm("self_attn.q_norm", c.norms_all_heads ? c.q_width() : c.head_dim);
    w.k_norm = norm("self_attn.k_norm", c.norms_all_heads ? c.kv_width() : c.head_dim);
  }
  if (c.has_sinks) w.sinks = source.vector(layer + "self_attn.sinks", c.n_heads);
  w.o_proj = matrix("self_attn.o_proj", hidden, c.q_width());
  w.o_bias = bias(c.o_bias, "self_attn.o_proj", hidden);
  if (c.norms_outputs) {
    w.attention_output_norm = norm("post_attention_layernorm", hidden);
    w.feed_forward_output_norm = norm("post_feedforward_layernorm", hidden);
  } else {
    w.post_attention_norm = norm("post_attention_layernorm", hidden);
  }
  if (c.is_mixture(i)) {
    add_mixture(source, c, layer, w);
    if (inner == 0) return w;
  }
  const char* shared = c.family == Family::glm4_moe ? "mlp.shared_experts." : "mlp.shared_expert.";
  const std::string feed_forward = c.is_mixture(i) ? shared : "mlp.";
  if (c.family == Family::phi3) {
    const WeightView both = matrix("mlp.gate_up_proj", 2 * inner, hidden);
    w.up_proj = source.rows(both, inner, inner);
    w.gate_proj = source.rows(both, 0, inner);
  } else {
    w.gate_proj = matrix(feed_forward + "gate_proj", inner, hidden);
    w.up_proj = matrix(feed_forward + "up_proj", inner, hidden);
  }
  w.down_proj = matrix(feed_forward + "down_proj", hidden, inner);
  w.gate_bias = bias(c.mlp_bias, "mlp.gate_proj", inner);
  w.up_bias = bias(c.mlp_bias, "mlp.up_proj", inner);
  w.down_bias = bias(c.mlp_bias, "mlp.down_proj", hidden);
  return w;
}

bool have_same_values(const WeightView& a, const WeightView& b) {
  if (a.dtype == Dtype::f8) return false;  // a head of its own; no embedding is FP8
  if (a.dtype == b.dtype) return std::memcmp(a.data, b.data, a.n_bytes()) == 0;
  const std::int64_t n = a.n_rows * a.n_cols;
  for (std::int64_t i = 0; i < n; ++i) {
    if (value_at(a, i) != value_at(b, i)) return false;
  }
  return true;
}

// Everything that the config asks for, and a head of its own beside tied embeddings; other tensors
// (the inv_freq buffers of old Llama files) are never looked at.
void collect(WeightSource& source, const ModelConfig& c, ModelWeights& weights) {
  const std::string prefix = prefix_of(source);
  const std::string head_name = head_of(source);
  weights.embedding = source.matrix(prefix + kEmbedding, c.vocab_size, c.hidden_size);
  for (std::int64_t i = 0; i < c.n_layers; ++i)
    weights.layers.push_back(layer_from(source, c, prefix, i));
  weights.final_norm = source.vector(prefix + "norm.weight", c.hidden_size);
  weights.lm_head = weights.embedding;
  if (c.tied_embeddings && !source.has(head_name)) return;
  const WeightView head = source.matrix(head_name, c.vocab_size, c.hidden_size);
  if (!c.tied_embeddings || !have_same_values(head, weights.embedding)) weights.lm_head = head;
}

void warn_of_differences(const WeightFiles& files, const ModelWeights& weights,
                         const ModelConfig& config, const std::string& folder) {
  if (config.tied_embeddings && weights.lm_head.data != weights.embedding.data) {
    log::warn(
        "{}: the weights hold a {} that differs from the embedding, though tie_word_embeddings is "
        "true in config.json; the one in the weights is used",
        folder, kHead);
  }
  const std::int64_t n_layers = files.n_layers(prefix_of(files));
  if (n_layers > config.n_layers + config.n_guessing_layers) {
    log::warn(
        "{}: the weights hold {} layers and config.json asks for {} (num_hidden_layers); the "
        "others are not used",
        folder, n_layers, config.n_layers);
  }
  const std::vector<std::string> left_out = files.left_out(prefix_of(files), config.n_layers);
  if (!left_out.empty()) {
    log::warn(
        "{}: the weights hold {} tensors of layers that {} with this config.json does not have, {} "
        "is one; they are not used, as in transformers",
        folder, left_out.size(), config.architecture, left_out.front());
  }
}

}  // namespace

ModelWeights ModelWeights::open(const std::string& folder, const ModelConfig& config) {
  ModelWeights weights;
  WeightFiles source(folder, config.fp8);
  collect(source, config, weights);
  warn_of_differences(source, weights, config, folder);
  weights.names_ = source.take_names();
  weights.packed_ = source.take_packed();
  weights.files_ = std::make_shared<std::map<std::string, SafetensorsFile>>(source.take());
  weights.owned_ =
      std::make_shared<std::vector<std::unique_ptr<std::byte[]>>>(source.take_scales());
  return weights;
}

ModelWeights ModelWeights::random(const ModelConfig& config, Dtype dtype, std::uint64_t seed) {
  ModelWeights weights = random_later(config, dtype, seed);
  for (const WeightView& view : weights.all()) weights.random_->fill(view);
  return weights;
}

ModelWeights ModelWeights::random_later(const ModelConfig& config, Dtype dtype,
                                        std::uint64_t seed) {
  if (dtype == Dtype::f16) fail(Exit::usage, "random weights come in f32 and bf16, not in f16");
  ModelWeights weights;
  weights.random_ = std::make_shared<RandomWeights>(dtype, seed);
  collect(*weights.random_, config, weights);
  weights.names_ = weights.random_->take_names();
  return weights;
}

void ModelWeights::make_fp8() {
  made_ = std::make_shared<MadeFp8>();
  const auto make = [&](WeightView& w) {
    if (!w || w.dtype == Dtype::f8) return;
    const std::string name = name_of(w).name;
    w = made_->add(w);
    names_[w.data] = {name, nullptr};
  };
  for (LayerWeights& w : layers) {
    for (WeightView* matrix :
         {&w.q_proj, &w.k_proj, &w.v_proj, &w.o_proj, &w.gate_proj, &w.up_proj, &w.down_proj})
      make(*matrix);
    for (Expert& expert : w.experts)
      for (WeightView* matrix : {&expert.gate_proj, &expert.up_proj, &expert.down_proj})
        make(*matrix);
    mark_mixed(w.experts);
  }
}

bool ModelWeights::is_made(const WeightView& weight) const {
  return (made_ && made_->source_of(weight)) || (packed_ && packed_->has(weight));
}

std::span<const std::byte> ModelWeights::bytes_in_file(const WeightView& weight) const {
  if (packed_ && packed_->has(weight)) return packed_->bytes_in_file(weight);
  return {weight.data, weight.n_bytes()};
}

void ModelWeights::fill(const WeightView& part) const {
  const WeightView source = made_ ? made_->source_of(part) : WeightView{};
  const WeightView& first = source ? source : part;
  if (random_) random_->fill(first);
  if (packed_) packed_->fill(first);
  if (!source) return;
  made_->fill(part);
  if (random_ || (packed_ && packed_->has(source))) forget(source);
}

void ModelWeights::forget(const WeightView& part) const {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(part.data) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(part.data) + part.n_bytes()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::vector<WeightView> ModelWeights::all() const {
  std::vector<WeightView> all{embedding, final_norm};
  if (lm_head.data != embedding.data) all.push_back(lm_head);
  for (const LayerWeights& w : layers) {
    for (const WeightView& view : {w.input_norm,
                                   w.q_proj,
                                   w.k_proj,
                                   w.v_proj,
                                   w.q_bias,
                                   w.k_bias,
                                   w.v_bias,
                                   w.q_norm,
                                   w.k_norm,
                                   w.sinks,
                                   w.o_proj,
                                   w.o_bias,
                                   w.attention_output_norm,
                                   w.post_attention_norm,
                                   w.gate_proj,
                                   w.up_proj,
                                   w.down_proj,
                                   w.gate_bias,
                                   w.up_bias,
                                   w.down_bias,
                                   w.feed_forward_output_norm,
                                   w.shared_gate,
                                   w.router,
                                   w.router_bias,
                                   w.correction}) {
      if (view) all.push_back(view);
    }
    for (const Expert& expert : w.experts) {
      for (const WeightView& view : {expert.gate_proj, expert.up_proj, expert.down_proj,
                                     expert.gate_bias, expert.up_bias, expert.down_bias}) {
        if (view) all.push_back(view);
      }
    }
  }
  return all;
}

std::uint64_t ModelWeights::total_bytes() const {
  std::uint64_t n_bytes = 0;
  for (const WeightView& weight : all()) n_bytes += weight.n_bytes();
  return n_bytes;
}

std::vector<MappedFile*> ModelWeights::files() const {
  std::vector<MappedFile*> files;
  if (!files_) return files;
  for (auto& [name, file] : *files_) files.push_back(&file.file());
  return files;
}

}  // namespace starattn
