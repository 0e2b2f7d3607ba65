// SPDX-License-Identifier: Apache-2.0
// A model of some shape with random weights, on this job's ranks: for figures of speed.
#pragma once

#include <memory>

#include "run/loaded_model.h"
#include "run/options.h"

namespace starattn {

// Without tokenizer and chat markup. Collective. Throws as open_model.
std::unique_ptr<LoadedModel> make_random_model(const ModelConfig& config, const Options& options,
                                               const Ranks& ranks);

}  // namespace starattn
