// SPDX-License-Identifier: Apache-2.0
// The schedule of both phases as a simulation (simulate/timeline.h): which rank does what in which
// order, and what it waits for, as star/encode*.cpp and star/answer.cpp have it, with the seconds
// of star/seconds.h. On one rank it is the sum of its operations.
//
// Left out: loading, checkpoints, tokenizing, and that a rank may be busy when a message could
// move.
#pragma once

#include <string>
#include <vector>

#include "star/cost.h"
#include "star/seconds.h"

namespace starattn {

struct Cluster {
  int ranks_per_node = 1 << 20;  // more than there are: one node
  // Between nodes, where the machine file has none: 400 Gbit/s a rank.
  ByteTime network{5e-6, 50e9};
  std::vector<std::pair<Rank, double>> slow;  // ranks that take so many times as long
};

struct Simulated {
  double seconds = 0;
  double least_wait = 0;  // of a rank for messages
  double most_wait = 0;   // of another
  double n_bytes = 0;     // that ranks sent
};

struct Phase1Options {
  AnchorMode anchor_mode = AnchorMode::broadcast;
  KvMemory kv_memory = KvMemory::device;
  int n_shares = 1;  // ranks that share the weights
};

// Both throw Error(unfit) where there are several ranks and the machine file has no messages.
Simulated simulate_phase1(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                          const Cluster& cluster, const Phase1Options& options = {});

// One step of phase 2 with n_rows rows, of which so many predict a token, on one query rank or with
// shared weights.
struct StepRows {
  std::int64_t n_rows = 1;
  std::vector<std::int64_t> runs = {1};  // rows of each product that makes logits
};
Simulated simulate_step(const ModelConfig& config, const BlockPlan& plan, const Machine& machine,
                        const Cluster& cluster, const StepRows& rows, AnswerLayout layout = {},
                        KvMemory kv_memory = KvMemory::device);

// What modelled seconds of each phase are multiplied by, where finished runs say so (plan
// --history).
struct Experience {
  double phase1 = 1, phase2 = 1;
};

// All of phase 2 for queries that come together: the steps, and their seconds.
struct SimulatedAnswers {
  double seconds = 0;
  std::int64_t n_steps = 0;
};
SimulatedAnswers simulate_answers(const ModelConfig& config, const BlockPlan& plan,
                                  const Machine& machine, const Cluster& cluster,
                                  std::int64_t n_queries, std::int64_t n_query_tokens,
                                  std::int64_t n_new_tokens, AnswerLayout layout = {},
                                  KvMemory kv_memory = KvMemory::device);

}  // namespace starattn
