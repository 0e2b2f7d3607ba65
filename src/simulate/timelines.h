// SPDX-License-Identifier: Apache-2.0
// Both phases as operations of a timeline that has not run: the first n_layers of the model.
#pragma once

#include "simulate/schedule.h"
#include "simulate/timeline.h"

namespace starattn {

Timeline phase1_timeline(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                         const Cluster& cluster, const Phase1Options& options,
                         std::int64_t n_layers);

// One step on one query rank.
Timeline step_timeline(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                       const Cluster& cluster, std::int64_t n_rows, AnswerLayout layout,
                       KvMemory kv_memory, std::int64_t n_layers);

}  // namespace starattn
