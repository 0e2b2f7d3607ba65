// SPDX-License-Identifier: Apache-2.0
// The sliding windows of a config.json: which layers have one, and how wide it is.
#pragma once

#include <vector>

#include "base/json.h"
#include "model/config.h"

namespace starattn {

// Sets the windows of config.layers, or where the file's positions end before its window does,
// config.sliding_window. Comes behind the family, the layers and the positions; what an absent key
// means differs between families. Returns which layers slide, though their window may be none.
// Throws Error(bad_data) naming the key.
std::vector<bool> read_windows(const JsonObject& json, ModelConfig& config);

// Whether the family asks layer_types, or else its layers are all alike.
bool reads_layer_types(const JsonObject& json, const ModelConfig& config);

}  // namespace starattn
