// SPDX-License-Identifier: Apache-2.0
// What a document takes by its plan alone: blocks, memory, operations, and the bytes of a step.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "model/config.h"
#include "star/cost.h"
#include "star/plan.h"

namespace starattn {

// Bytes. Embedding and head of an FP8 model are of wide_dtype.
std::uint64_t bytes_of_weights(const ModelConfig& config, Dtype wide_dtype);

struct SizesRequest {
  AnchorMode anchor_mode = AnchorMode::broadcast;
  bool on_gpu = false;
  bool has_f8_kv = false;
  double gflops = 0;     // of one rank; 0: no least time of phase 1
  double read_rate = 0;  // GB/s of one rank; 0: no least time of a step
};

class PlanSizes {
 public:
  // config, plan: outlive this.
  PlanSizes(const ModelConfig& config, const BlockPlan& plan, const SizesRequest& request);

  std::string to_text() const;
  Json to_json() const;  // docs/metrics.md has the keys

 private:
  std::string blocks() const;
  std::string expected_of_recall() const;
  std::string shared_weights() const;
  std::string streamed_weights() const;
  MemoryNeed need_with_streamed_weights() const;
  std::string memory() const;
  std::string phase_1() const;
  std::string phase_2() const;
  MemoryNeed need(KvMemory where) const;  // of the fullest rank
  double least_phase_1_seconds() const { return slowest_ / (request_.gflops * 1e9); }
  double least_step_seconds() const {
    return static_cast<double>(step_.total()) / (request_.read_rate * 1e9);
  }

  const ModelConfig& config_;
  const BlockPlan& plan_;
  SizesRequest request_;
  Dtype dtype_, kv_dtype_;
  std::int64_t chunk_rows_;
  std::uint64_t answering_;    // bytes of the query rank in phase 2, beside weights and own KV
  std::uint64_t query_token_;  // bytes of each token of a query there
  Phase1Flops flops_;
  double slowest_;  // operations of the rank that has most
  StepBytes step_;
};

}  // namespace starattn
