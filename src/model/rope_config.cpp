// SPDX-License-Identifier: Apache-2.0
#include "model/rope_config.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "model/window_config.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxPositions = std::int64_t{1} << 32;
constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr const char* kRotaryShare = "partial_rotary_factor";

// rope_scaling, else rope_parameters, else nothing; null and {} say nothing.
const char* key_of_scaling(const JsonObject& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.has(key) && config.get(key) != Json::object()) return key;
  }
  return nullptr;
}

RopeKind read_kind(const JsonObject& scaling) {
  static const std::map<std::string, RopeKind> kKinds = {
      {"default", RopeKind::standard},  {"linear", RopeKind::linear},
      {"llama3", RopeKind::llama3},     {"yarn", RopeKind::yarn},
      {"longrope", RopeKind::longrope}, {"su", RopeKind::longrope}};
  const char* key = scaling.has("rope_type") ? "rope_type" : "type";
  const std::string name = scaling.find_string(key).value_or("default");
  const auto kind = kKinds.find(name);
  if (kind == kKinds.end()) {
    fail(Exit::bad_data,
         "{}: RoPE type '{}' is not supported: expected default, linear, llama3, yarn or longrope "
         "(the angles of dynamic change with the length, so blocks cannot be encoded apart)",
         scaling.where(), name);
  }
  return kind->second;
}

// The number at a key, or `absent`; refused outside (above, at_most].
double number_above(const JsonObject& json, const char* key, double absent, double above,
                    double at_most) {
  const double value = json.find_number(key).value_or(absent);
  if (!(value > above && value <= at_most)) {
    fail(Exit::bad_data, "{}: key '{}': expected a number above {} and at most {}, got {}",
         json.where(), key, above, at_most, value);
  }
  return value;
}

void check_factor(const JsonObject& scaling, double factor) {
  if (!(factor >= 1 && factor <= kMaxFactor)) {
    fail(Exit::bad_data, "{}: key 'factor': expected a number from 1 to {}, got {}",
         scaling.where(), kMaxFactor, factor);
  }
}

void read_llama3(const JsonObject& scaling, RopeConfig& rope) {
  scaling.get("low_freq_factor");
  scaling.get("high_freq_factor");
  rope.low_freq_factor = number_above(scaling, "low_freq_factor", 0, 0, kMaxFactor);
  rope.high_freq_factor =
      number_above(scaling, "high_freq_factor", 0, rope.low_freq_factor, kMaxFactor);
}

void read_yarn(const JsonObject& scaling, RopeConfig& rope) {
  rope.beta_slow = number_above(scaling, "beta_slow", 1, 0, kMaxFactor);
  rope.beta_fast = number_above(scaling, "beta_fast", 32, rope.beta_slow, kMaxFactor);
  if (scaling.has("attention_factor"))
    rope.attention_factor = number_above(scaling, "attention_factor", 0, 0, kMaxFactor);
  for (const auto& [key, value] :
       {std::pair{"mscale", &rope.mscale}, {"mscale_all_dim", &rope.mscale_all_dim}}) {
    // 0 means absent here, as it does in transformers.
    if (scaling.find_number(key).value_or(0) != 0)
      *value = number_above(scaling, key, 0, 0, kMaxFactor);
  }
  rope.truncate = scaling.find_bool("truncate").value_or(true);
}

// Ministral 3 alone has it, beside whichever type.
double read_query_beta(const JsonObject& scaling) {
  constexpr double kMostBeta = 100;
  const double beta = scaling.find_number("llama_4_scaling_beta").value_or(0);
  if (!(beta >= 0 && beta <= kMostBeta)) {
    fail(Exit::bad_data, "{}: key 'llama_4_scaling_beta': expected a number from 0 to {}, got {}",
         scaling.where(), kMostBeta, beta);
  }
  return beta;
}

// LongRoPE has other angles beyond the original length, whatever the position. A document is
// encoded block by block, so a model has one set of them: those of its full length.
void read_longrope(const JsonObject& scaling, const ModelConfig& config, RopeConfig& rope) {
  if (rope.original_positions < 2) {
    fail(Exit::bad_data, "{}: key 'original_max_position_embeddings': expected at least 2, got {}",
         scaling.where(), rope.original_positions);
  }
  const char* key = config.max_positions > rope.original_positions ? "long_factor" : "short_factor";
  const Json& divisors = scaling.get(key);
  const std::int64_t n_pairs = (rope.rotary > 0 ? rope.rotary : config.head_dim) / 2;
  const auto is_divisor = [](const Json& one) {
    return one.is_number() && one.get<double>() > 0 && one.get<double>() <= kMaxFactor;
  };
  if (!divisors.is_array() || std::ssize(divisors) != n_pairs ||
      !std::ranges::all_of(divisors, is_divisor)) {
    fail(
        Exit::bad_data,
        "{}: key '{}': expected a number above 0 and at most {} for each of {} pairs, half of what "
        "is rotated of a head, got {}",
        scaling.where(), key, kMaxFactor, n_pairs, to_line(divisors).substr(0, 80));
  }
  rope.divisors = divisors.get<std::vector<double>>();
  if (scaling.has("attention_factor"))
    rope.attention_factor = number_above(scaling, "attention_factor", 0, 0, kMaxFactor);
}

// RopeConfig::rotary. absent_share: of a head's values, where the file says nothing.
std::int64_t read_rotary(const JsonObject& json, const ModelConfig& config, double absent_share) {
  const char* key = kRotaryShare;
  const double share = json.find_number(key).value_or(absent_share);
  if (share == 1) return 0;
  if (config.family != Family::phi3 && config.family != Family::glm4_moe &&
      config.family != Family::minimax_m2) {
    fail(Exit::bad_data,
         "{}: key '{}': heads of '{}' that are rotated in part are not supported: expected 1, got "
         "{}",
         json.where(), key, config.architecture, share);
  }
  const auto rotary = share > 0 && share < 1
                          ? static_cast<std::int64_t>(static_cast<double>(config.head_dim) * share)
                          : 0;
  if (rotary < 2 || rotary % 2 != 0) {
    fail(Exit::bad_data,
         "{}: key '{}': expected a number up to 1 by which an even number of head_dim = {} values "
         "is rotated, got {}",
         json.where(), key, config.head_dim, share);
  }
  return rotary;
}

// json: the whole; scaling: its rope_scaling or rope_parameters, or an entry of theirs.
RopeConfig read_rope(const JsonObject& json, const JsonObject& scaling, double theta,
                     const ModelConfig& config) {
  RopeConfig rope;
  rope.rotary = scaling.has(kRotaryShare) ? read_rotary(scaling, config, 1) : config.rope.rotary;
  rope.kind = read_kind(scaling);
  rope.theta = number_above(scaling, "rope_theta", theta, 1, kMaxTheta);
  if (config.family == Family::ministral3) rope.query_beta = read_query_beta(scaling);
  const std::int64_t max_positions = config.max_positions;
  const bool is_stretched = rope.kind != RopeKind::standard && rope.kind != RopeKind::linear;
  if (is_stretched || rope.query_beta > 0) {
    const char* original = "original_max_position_embeddings";
    const auto inside = scaling.find_int(original, 1, kMaxPositions);
    const auto outside = json.find_int(original, 1, kMaxPositions);
    rope.original_positions = outside.value_or(inside.value_or(max_positions));
  }
  if (rope.kind == RopeKind::standard) return rope;

  // YaRN and LongRoPE may leave the factor to the two lengths.
  const bool may_leave_it = rope.kind == RopeKind::yarn || rope.kind == RopeKind::longrope;
  rope.factor =
      may_leave_it && !scaling.has("factor")
          ? static_cast<double>(max_positions) / static_cast<double>(rope.original_positions)
          : scaling.get_number("factor");
  if (rope.kind == RopeKind::longrope) rope.factor = std::max(rope.factor, 1.0);
  check_factor(scaling, rope.factor);
  if (rope.kind == RopeKind::llama3) read_llama3(scaling, rope);
  if (rope.kind == RopeKind::yarn) read_yarn(scaling, rope);
  if (rope.kind == RopeKind::longrope) read_longrope(scaling, config, rope);
  return rope;
}

// What partial_rotary_factor means where it is absent.
double absent_share_of_rotary(const JsonObject& json, const ModelConfig& config) {
  const bool is_null = json.json().contains(kRotaryShare);  // which says something
  if (config.family == Family::glm4_moe && !is_null) return 0.5;
  if (config.family != Family::minimax_m2) return 1;
  const auto n = json.find_int("rotary_dim", 2, config.head_dim).value_or(config.head_dim);
  return static_cast<double>(n) / static_cast<double>(config.head_dim);
}

void refuse_beside_one_rope(const JsonObject& json, const JsonObject& scaling,
                            const ModelConfig& config) {
  if (config.n_with_other_rope() == 0 && reads_layer_types(json, config)) return;
  fail(Exit::bad_data,
       "{}: RoPE by layer_types (full_attention, sliding_attention) is not supported in these "
       "layers of '{}': expected one for all that have RoPE",
       scaling.where(), config.architecture);
}

}  // namespace

void read_layers_without_rope(const JsonObject& json, ModelConfig& config) {
  constexpr std::int64_t kMostLayers = 1024;
  config.other_rope.kind = RopeKind::none;
  const char* key = "no_rope_layers";  // which of them have RoPE, in spite of its name
  if (!json.has(key)) {
    const std::int64_t interval =
        json.find_int("no_rope_layer_interval", 1, kMostLayers).value_or(4);
    for (std::int64_t i = interval; i <= config.n_layers; i += interval)
      config.layers[static_cast<std::size_t>(i - 1)].has_other_rope = true;
    return;
  }
  const Json& layers = json.get(key);
  if (!layers.is_array() || std::ssize(layers) != config.n_layers ||
      !std::ranges::all_of(layers, [](const Json& one) {
        return one.is_number_unsigned() && one.get<std::uint64_t>() <= 1;
      })) {
    fail(Exit::bad_data,
         "{}: key '{}': expected a list with 1 (RoPE) or 0 (none) for each of num_hidden_layers = "
         "{}, got {}",
         json.where(), key, config.n_layers, to_line(layers).substr(0, 80));
  }
  for (std::size_t i = 0; i < layers.size(); ++i) config.layers[i].has_other_rope = layers[i] == 0;
}

void read_ropes(const JsonObject& json, double absent_theta, const std::vector<bool>& slides,
                ModelConfig& config) {
  config.rope.theta = number_above(json, "rope_theta", absent_theta, 1, kMaxTheta);
  config.rope.rotary = read_rotary(json, config, absent_share_of_rotary(json, config));
  const char* key = key_of_scaling(json);
  if (!key) return;

  const JsonObject scaling = json.get_object(key);
  const RopeConfig plain = config.rope;
  const auto read = [&](const JsonObject& entry) {
    return read_rope(json, entry, plain.theta, config);
  };
  const char *full = "full_attention", *sliding = "sliding_attention";
  const bool is_by_type = scaling.has(full) || scaling.has(sliding);
  if (is_by_type) refuse_beside_one_rope(json, scaling, config);
  if (!is_by_type || scaling.has(full))
    config.rope = read(is_by_type ? scaling.get_object(full) : scaling);
  // Olmo 3 never stretches the layers that slide.
  if (!is_by_type && config.family != Family::olmo3) return;
  config.other_rope = scaling.has(sliding) ? read(scaling.get_object(sliding)) : plain;
  for (std::size_t i = 0; i < slides.size(); ++i)
    config.layers[i].has_other_rope = slides[i] && config.other_rope != config.rope;
}

}  // namespace starattn
