// SPDX-License-Identifier: Apache-2.0
// What a plan costs, as arithmetic: floating-point operations of phase 1, bytes that a step of
// phase 2 reads, and bytes of memory on the fullest rank. docs/metrics.md defines the terms.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "model/config.h"
#include "star/kv.h"
#include "star/plan.h"

namespace starattn {

struct Phase1Flops {
  double linear = 0;     // 2 per weight and token; the last layer makes keys and values only
  double attention = 0;  // 4 head_dim per head and visible query-key pair; none in the last layer
  double asking = 0;     // recall: 2 head_dim per head, asking row and key that it is held against
  double total() const { return linear + attention + asking; }
};

// Of the whole document, all ranks together.
Phase1Flops phase1_flops(const ModelConfig& config, const BlockPlan& plan, AnchorMode anchor_mode);

// Of the rank with most to do: what phase 1 takes at least, times its rate.
double slowest_rank_flops(const ModelConfig& config, const BlockPlan& plan, AnchorMode anchor_mode);

// What one step of phase 2 reads at least, however few its rows: on the query rank every weight but
// an embedding table of its own and experts that one row leaves out, and beside it on every rank
// the K and V of its blocks. weight_dtype: of an FP8 model's head.
struct StepBytes {
  std::uint64_t weights = 0;
  std::uint64_t kv = 0;  // of the rank with most, in layers with windows what a query sees
  std::uint64_t total() const { return weights + kv; }
};
StepBytes step_bytes(const ModelConfig& config, const BlockPlan& plan, Dtype weight_dtype,
                     Dtype kv_dtype);

struct MemoryNeed {
  std::uint64_t weights = 0;    // one copy a node: read-only mapping shared by its ranks
  std::uint64_t own_kv = 0;     // this rank's blocks; in host memory: two of their layers
  std::uint64_t host_kv = 0;    // this rank's blocks, pinned in host memory, beside the total
  std::uint64_t anchor = 0;     // the anchor's K and V, except on block 0's owner
  std::uint64_t workspace = 0;  // residual stream of the rows in work, chunks, partials
  std::uint64_t total() const { return weights + own_kv + anchor + workspace; }
  std::string arithmetic() const;  // "weights 19.5 MiB + own KV 6.0 MiB + ... = 90.1 MiB"
};

// Of every rank.
std::vector<MemoryNeed> memory_needs(const ModelConfig& config, const BlockPlan& plan,
                                     AnchorMode anchor_mode, std::uint64_t weight_bytes,
                                     Dtype kv_dtype, Dtype activation_dtype,
                                     std::int64_t chunk_rows,
                                     KvMemory kv_memory = KvMemory::device);

// How phase 2 lays queries out (AnswerOptions).
struct AnswerLayout {
  bool spread_queries = false;
  bool tree_merge = false;
  // Of the nodes, the fewest ranks that share out the weights; 0: whoever has a query has them all.
  int n_shares = 0;

  bool has_shares() const { return n_shares > 0; }
};

// Bytes that phase 2 takes on every rank beside the weights and the K and V of the document and of
// the queries in work: rows of a step, partials, and the buffers that phase 1 keeps.
std::vector<std::uint64_t> answer_workspaces(const ModelConfig& config, const BlockPlan& plan,
                                             AnswerLayout layout, Dtype kv_dtype,
                                             Dtype activation_dtype, std::int64_t chunk_rows);

// K and V of a query in work, on a rank that keeps them: of its tokens and as many new ones as it
// may get. n_shares: ranks that keep some heads of it each, 0 as 1; this is the one with most.
std::uint64_t query_kv_bytes(const ModelConfig& config, std::int64_t n_query_tokens,
                             std::int64_t max_new_tokens, Dtype activation_dtype, int n_shares = 0);

const MemoryNeed& fullest(const std::vector<MemoryNeed>& needs);

}  // namespace starattn
