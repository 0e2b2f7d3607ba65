// SPDX-License-Identifier: Apache-2.0
// A model's weights as read-only views into memory-mapped safetensors: nothing is copied, so the
// ranks of a node share one copy in the page cache.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/tensors.h"
#include "base/dtype.h"
#include "base/mapped_file.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace starattn {

// One decoder layer. A projection is [n_out, n_in]: y = x W^T + bias.
struct LayerWeights {
  WeightView input_norm;              // [1, hidden] or absent (Olmo)
  WeightView q_proj, k_proj, v_proj;  // [q_width | kv_width, hidden]
  WeightView q_bias, k_bias, v_bias;  // [1, q_width | kv_width] or absent
  WeightView q_norm, k_norm;          // [1, head_dim] (Qwen3), of all heads [1, q_width |
                                      // kv_width] (Olmo, MiniMax) or absent
  WeightView sinks;                   // [1, n_heads] or absent (GPT-OSS)
  WeightView o_proj, o_bias;          // [hidden, q_width], [1, hidden] or absent
  WeightView attention_output_norm;   // [1, hidden] (Olmo) or absent
  WeightView post_attention_norm;     // [1, hidden] or absent (Olmo)
  // [inner, hidden] x 2, [hidden, inner]: of a mixture those of its shared expert, or absent
  WeightView gate_proj, up_proj, down_proj;
  WeightView gate_bias, up_bias, down_bias;  // or absent
  WeightView feed_forward_output_norm;       // [1, hidden] (Olmo) or absent
  WeightView shared_gate;       // [1, hidden], whose product with a row says how much of that it
                                // takes (Qwen2-MoE); or absent
  WeightView router;            // [n_experts, hidden] of a mixture
  WeightView router_bias;       // [1, n_experts] or absent
  WeightView correction;        // [1, n_experts] (GLM, MiniMax) or absent
  std::vector<Expert> experts;  // [n_experts]
};

class MadeFp8;
class PackedExperts;
class RandomWeights;

struct WeightName {
  std::string name;        // "model.norm.weight"
  const MappedFile* file;  // that it lies in; null for random weights
};

class ModelWeights {
 public:
  // Maps the folder's safetensors (model.safetensors, or the shards of
  // model.safetensors.index.json) and finds every tensor that the config asks for, with its shape
  // checked. Throws Error(no_input | bad_data) naming file and tensor. Warns of what the files hold
  // against the config.
  static ModelWeights open(const std::string& folder, const ModelConfig& config);

  // The same shapes filled with seeded bell-shaped numbers (for benchmarks; no file needed), bf16
  // or f32.
  static ModelWeights random(const ModelConfig& config, Dtype dtype, std::uint64_t seed);
  // The same, with numbers that are made where they are asked for.
  static ModelWeights random_later(const ModelConfig& config, Dtype dtype, std::uint64_t seed);
  // FP8 in place of the other matrices of the layers but the routers', with a scale for each row
  // (f8_exponent). Their numbers, too, are made where they are asked for.
  void make_fp8();
  // Whether some numbers are made here of what the files hold, and which; those have to be filled.
  bool are_made() const { return made_ || packed_; }
  bool is_made(const WeightView& weight) const;
  // What tells a tensor from that of another model: its bytes, or those that it is made of.
  std::span<const std::byte> bytes_in_file(const WeightView& weight) const;

  // Makes the numbers of a tensor, or of some rows of one, if they are not those of a file.
  void fill(const WeightView& part) const;
  void forget(const WeightView& part) const;  // its memory is free until it is filled again

  WeightView embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  WeightView final_norm;  // [1, hidden]
  WeightView lm_head;     // [vocab, hidden]; the embedding where tied, unless the files differ

  std::vector<WeightView> all() const;  // that are there; a tied one once

  const WeightName& name_of(const WeightView& weight) const { return names_.at(weight.data); }

  // The mapped files, by name; none for random weights.
  std::vector<MappedFile*> files() const;
  std::uint64_t total_bytes() const;  // tied tensors counted once

 private:
  std::shared_ptr<std::map<std::string, SafetensorsFile>> files_;
  std::shared_ptr<RandomWeights> random_;  // of random() and random_later()
  std::shared_ptr<MadeFp8> made_;          // of make_fp8()
  std::shared_ptr<PackedExperts> packed_;  // of files that have some
  std::shared_ptr<std::vector<std::unique_ptr<std::byte[]>>> owned_;  // scales
  std::map<const std::byte*, WeightName> names_;
};

}  // namespace starattn
