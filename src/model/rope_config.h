// SPDX-License-Identifier: Apache-2.0
// The RoPE settings of a config.json: rope_theta and rope_scaling, as transformers 4 wrote them, or
// rope_parameters, as transformers 5 does. Where both say something, what transformers 5 believes.
#pragma once

#include "base/json.h"
#include "model/config.h"

namespace starattn {

// max_positions: the model's, which stands in for original_max_position_embeddings where that is
// absent. Throws Error(bad_data) on values out of range and, by name, on RoPE types that we lack.
RopeConfig read_rope_config(const JsonObject& config, std::int64_t max_positions);

}  // namespace starattn
