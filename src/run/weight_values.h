// SPDX-License-Identifier: Apache-2.0
// Weights that are NaN or infinite are found before any work.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "backend/backend.h"
#include "base/next_token.h"
#include "model/weights.h"
#include "mpi/communicator.h"

namespace starattn {

// Tokens whose row of the embedding is not finite, and the place of the value: only documents with
// them cannot be worked on.
using BadTokens = std::map<Token, std::int64_t>;

// Collective over the ranks; of host memory, and where devices keep some rows each (is_shared),
// each of a node's ranks looks at its share. Throws AgreedError(bad_data) naming tensor and index
// for all other weights, and for the embedding where it is the head as well or hardly a row is
// left.
BadTokens find_bad_weights(const ModelWeights& weights, Backend& backend, const Communicator& world,
                           bool is_shared = false);

// "model.safetensors: tensor 'lm_head.weight' is not finite (NaN or infinite) at [1500, 3]"
std::string describe_bad_value(const ModelWeights& weights, const WeightView& w, std::int64_t at);

}  // namespace starattn
