// SPDX-License-Identifier: Apache-2.0
// What config.json says about a model, checked and in our own words. Families: Llama 2/3/3.1/3.2,
// Qwen2/2.5, Qwen2-MoE, Qwen3, Qwen3-MoE, Mistral, Mixtral, Granite, Seed-OSS, Phi-3, GPT-OSS,
// SmolLM3, Olmo 2, Olmo 3, GLM-4.5, MiniMax-M2, and the text part of Mistral 3, Qwen3-VL and
// Qwen3-VL-MoE. Anything else is refused by its name.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/dtype.h"

namespace starattn {

enum class Family {
  llama,
  qwen2,
  qwen3,
  mistral,
  qwen3_moe,
  granite,
  seed_oss,
  phi3,
  qwen3_vl,
  qwen3_vl_moe,
  ministral3,
  gpt_oss,
  smollm3,
  mixtral,
  olmo2,
  olmo3,
  qwen2_moe,
  glm4_moe,
  minimax_m2
};
// none: nothing is rotated. canonical_text() has their numbers.
enum class RopeKind { standard, linear, llama3, yarn, none, longrope };

struct RopeConfig {
  RopeKind kind = RopeKind::standard;
  double theta = 10000.0;
  double factor = 1.0;                  // linear, llama3, yarn, longrope
  double low_freq_factor = 1.0;         // llama3
  double high_freq_factor = 4.0;        // llama3
  std::int64_t original_positions = 0;  // llama3, yarn, longrope: original_max_position_embeddings
  double beta_fast = 32.0;              // yarn
  double beta_slow = 1.0;               // yarn
  // yarn, longrope: scale of cos and sin; 0 = from factor, and mscale or original_positions
  double attention_factor = 0.0;
  double mscale = 0.0;           // yarn
  double mscale_all_dim = 0.0;   // yarn
  bool truncate = true;          // yarn
  double query_beta = 0.0;       // Ministral 3: query_scale; 0: none
  std::int64_t rotary = 0;       // the first values of a head, which alone are rotated; 0: all
  std::vector<double> divisors;  // longrope: of each pair's frequency

  bool operator==(const RopeConfig&) const = default;
};

// By which Granite multiplies.
struct Multipliers {
  double embedding = 1;
  double residual = 1;   // what each half of a layer adds
  double attention = 0;  // scores, in place of 1 / sqrt(head_dim), which 0 stands for
  double logits = 1;
};

// A mixture of experts: a router chooses some of them for each row.
struct MixtureConfig {
  std::int64_t n_experts = 0;    // 0: no layer is a mixture
  std::int64_t n_chosen = 0;     // experts of a row
  std::int64_t expert_size = 0;  // their intermediate size
  Routing routing = {};
  bool has_biases = false;  // the router and the experts
  bool are_f8 = false;      // the experts, made of MXFP4 while they load (packed_experts.h)
  GatedUnit unit = {};
  // The intermediate size of an expert that every row takes as well; 0: there is none.
  std::int64_t shared_size = 0;
  bool weighs_shared = false;  // its share is a sigmoid of the row (Qwen2-MoE); else it is 1
};

// How the matrices of an FP8 model (e4m3) are scaled; those that its files hold in other types are
// not. Activations are rounded where the user wants it, whatever the model says of them.
struct Fp8Config {
  enum class Scales {
    none,     // no FP8
    tensor,   // one for a matrix
    channel,  // for each row
    block,
    made,   // here (ModelWeights::make_fp8)
    mixed,  // as each matrix's scales say by their shape
  };
  Scales scales = Scales::none;
  std::int64_t block_rows = 0, block_cols = 0;  // block; mixed, if it has blocks
  std::string suffix;                           // of their names: "_scale_inv" behind "....weight"
  bool rounds_rows = false;  // before products with them in phase 1 (Backend::rounds_rows)

  // A GPU's products have one scale for 128 columns; with narrower blocks matrices become bf16.
  bool is_widened_on_gpu() const { return block_cols % 128 != 0; }
};

constexpr std::int64_t kNoWindow = INT64_MAX;

// In what layers differ.
struct LayerConfig {
  std::int64_t window = kNoWindow;  // tokens that a row attends to, itself the last of them
  bool is_mixture = false;          // its feed forward is a mixture of experts
  bool has_other_rope = false;      // q and k are rotated by ModelConfig::other_rope

  bool has_window() const { return window != kNoWindow; }
};

struct ModelConfig {
  Family family = Family::llama;
  std::string architecture;  // "LlamaForCausalLM"
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t n_layers = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_positions = 0;   // that the model was made for; --allow-long goes beyond
  std::vector<LayerConfig> layers;  // [n_layers]; empty: none has a window or is a mixture
  // Layers behind these in the files that guess further tokens (GLM); they are not used.
  std::int64_t n_guessing_layers = 0;
  // Positions over which all layers attend plainly. Where the model was made for no more of them,
  // its windows are none, and no document goes beyond.
  std::int64_t sliding_window = kNoWindow;
  double rms_norm_eps = 1e-5;
  bool tied_embeddings = false;
  bool qkv_bias = false;         // q, k, v projections have biases (Qwen2; Llama attention_bias)
  bool o_bias = false;           // output projection has a bias (Llama attention_bias)
  bool mlp_bias = false;         // gate, up, down have biases (Llama mlp_bias)
  bool qk_norm = false;          // RMS norm on each head of q and k (Qwen3)
  bool has_sinks = false;        // a learned score of each head and layer that has no value
  bool norms_all_heads = false;  // those of q and of k are over all heads at once (Olmo, MiniMax)
  bool norms_outputs = false;    // the norms of a layer stand behind its halves (Olmo)
  RopeConfig rope;
  RopeConfig other_rope;  // of the layers that say so
  MixtureConfig mixture;
  Multipliers multipliers;
  Fp8Config fp8;
  Dtype dtype = Dtype::bf16;      // as the file says; the weights' own dtypes rule
  std::vector<Token> eos_tokens;  // may be empty here; generation_config.json adds to it
  Token bos_token = -1;           // -1: none

  std::int64_t q_width() const { return n_heads * head_dim; }
  std::int64_t kv_width() const { return n_kv_heads * head_dim; }
  LayerConfig layer(std::int64_t i) const {
    return layers.empty() ? LayerConfig{} : layers[static_cast<std::size_t>(i)];
  }
  bool is_mixture(std::int64_t i) const { return layer(i).is_mixture; }
  bool has_window(std::int64_t i) const { return layer(i).has_window(); }
  // The intermediate size of the feed forward that every row goes through: a layer's only one, or a
  // mixture's shared expert; 0: there is none.
  std::int64_t dense_size(std::int64_t i) const {
    return is_mixture(i) ? mixture.shared_size : intermediate_size;
  }
  std::int64_t widest_dense() const {
    const bool has_dense_layers = n_mixtures() < n_layers;
    return std::max(has_dense_layers ? intermediate_size : 0,
                    n_mixtures() > 0 ? mixture.shared_size : 0);
  }
  std::int64_t n_mixtures() const {
    return std::ranges::count(layers, true, &LayerConfig::is_mixture);
  }
  // The widest of the layers' windows; 0: none has one.
  std::int64_t widest_window() const {
    std::int64_t widest = 0;
    for (const LayerConfig& one : layers)
      if (one.has_window()) widest = std::max(widest, one.window);
    return widest;
  }
  std::int64_t n_windows() const {
    return std::ranges::count(layers, true, &LayerConfig::has_window);
  }
  // One of its layers' RoPEs splits heads as the other does.
  HeadSplit head() const { return {head_dim, rope.rotary > 0 ? rope.rotary : head_dim}; }
  ModelShape shape() const {
    return {{n_heads, n_kv_heads, head_dim},
            hidden_size,
            intermediate_size,
            mixture.expert_size,
            mixture.shared_size,
            head()};
  }
  std::int64_t n_with_other_rope() const {
    return std::ranges::count(layers, true, &LayerConfig::has_other_rope);
  }
  // That its layers have: rope, and other_rope where some have it.
  std::vector<RopeConfig> ropes() const {
    return n_with_other_rope() > 0 ? std::vector{rope, other_rope} : std::vector{rope};
  }
  // Whether q is multiplied by what depends on its position (query_scale).
  bool scales_queries() const { return rope.query_beta > 0 || other_rope.query_beta > 0; }
  // K and V of one token in every layer, in bytes.
  std::uint64_t kv_bytes_per_token(Dtype dtype_of_kv) const {
    const KvLayout layout{dtype_of_kv, n_kv_heads, head_dim};
    return 2ULL * static_cast<std::uint64_t>(n_layers) * layout.row_bytes();
  }
};

// Reads <folder>/config.json and, where present, generation_config.json (its eos_token_id).
// Throws Error(no_input | bad_data) naming file and key.
ModelConfig read_model_config(const std::string& folder);

std::uint64_t n_parameters(const ModelConfig& config);  // all of them; tied embeddings once
// Those of so many experts' matrices in every mixture.
std::uint64_t n_expert_parameters(const ModelConfig& config, std::int64_t n_experts);
// The same without the experts that one row leaves out.
std::uint64_t n_parameters_of_a_row(const ModelConfig& config);
std::string describe(const ModelConfig& config);  // one line for people
// Everything that changes K and V, and nothing else. Stable: checkpoints are found by it.
std::string canonical_text(const ModelConfig& config);

}  // namespace starattn
