// SPDX-License-Identifier: Apache-2.0
// Shapes of public models, for what needs no weights of theirs: `bench --shape`.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"

namespace starattn {

std::vector<std::string> shape_names();  // "10m", ..., "llama-3.1-8b", "qwen3-30b-a3b"

// name: one of shape_names(). n_layers: fewer or more than it has; 0: as it has them. RoPE is
// plain and reaches 16M positions, since a figure of speed asks for no more.
ModelConfig model_shape(const std::string& name, std::int64_t n_layers = 0);

}  // namespace starattn
