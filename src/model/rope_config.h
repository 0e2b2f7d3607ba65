// SPDX-License-Identifier: Apache-2.0
// The RoPE settings of a config.json: rope_theta and rope_scaling, as transformers 4 wrote them, or
// rope_parameters, as transformers 5 does. Where both say something, what transformers 5 believes.
// Either may have an entry for each of the layer_types.
#pragma once

#include <vector>

#include "base/json.h"
#include "model/config.h"

namespace starattn {

// SmolLM3's layers that rotate nothing (no_rope_layers, no_rope_layer_interval) get an other_rope
// that is none. Throws Error(bad_data) naming the key.
void read_layers_without_rope(const JsonObject& json, ModelConfig& config);

// Sets config.rope and, where layers that slide have another, config.other_rope. Comes behind those
// without and read_windows(); config.max_positions stands in for original_max_position_embeddings
// where that is absent. Throws Error(bad_data) on values out of range and, by name, on RoPE types
// that we lack.
void read_ropes(const JsonObject& json, double absent_theta, const std::vector<bool>& slides,
                ModelConfig& config);

}  // namespace starattn
