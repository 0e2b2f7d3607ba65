// SPDX-License-Identifier: Apache-2.0
// The experts of a config.json: which layers are mixtures of how many, and how many a row takes.
#pragma once

#include "base/json.h"
#include "model/config.h"

namespace starattn {

// Sets config.mixture and which of config.layers are mixtures, where the family has some; keys that
// are absent mean what they mean to transformers. Throws Error(bad_data) on values out of range, on
// layers that the model does not have and on routers that are not supported.
void read_mixture(const JsonObject& json, ModelConfig& config);

// Whether a quantization_config says that experts are MXFP4 (packed_experts.h), and nothing else.
bool has_mxfp4_experts(const JsonObject& json);

}  // namespace starattn
