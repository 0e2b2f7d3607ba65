// SPDX-License-Identifier: Apache-2.0
// The sliding windows of a config.json: which layers have one, and how wide it is.
#pragma once

#include "base/json.h"
#include "model/config.h"

namespace starattn {

// Sets the windows of config.layers, or where the file's positions end before its window does,
// config.sliding_window. Comes behind the family, the layers and the positions; what an absent key
// means differs between families. Throws Error(bad_data) naming the key.
void read_windows(const JsonObject& json, ModelConfig& config);

}  // namespace starattn
