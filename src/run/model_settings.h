// SPDX-License-Identifier: Apache-2.0
// What answers in one file must agree on of the model and of how it is asked.
#pragma once

#include "base/json.h"
#include "run/loaded_model.h"

namespace starattn {

// Architecture, digests of the weights (a sample of every tensor) and of the tokenizer's files,
// compute type, chat markup. Nothing of paths. Reads a few kilobytes a tensor.
Json model_settings(const LoadedModel& model);

}  // namespace starattn
