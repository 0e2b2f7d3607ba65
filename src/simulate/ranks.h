// SPDX-License-Identifier: Apache-2.0
// What the schedules of both phases know of the ranks of a plan.
#pragma once

#include <optional>
#include <vector>

#include "simulate/schedule.h"
#include "simulate/timeline.h"

namespace starattn {

// `near`: between ranks of a node. Throws Error(unfit) where there is none and the plan has several
// ranks, and where the plan is too large to simulate.
Links links_of(const BlockPlan& plan, const Machine& machine, const Cluster& cluster,
               const std::optional<ByteTime>& near);

std::vector<std::vector<BlockId>> blocks_by_rank(const BlockPlan& plan);

}  // namespace starattn
