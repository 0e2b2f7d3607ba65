// SPDX-License-Identifier: Apache-2.0
// What phase 2's rows see of the context through windows: the keys and values of its last tokens,
// in the layers that have one. Every rank with queries keeps them for itself, so that in such a
// layer nothing travels.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "mpi/communicator.h"
#include "star/kv.h"

namespace starattn {

class ContextTail {
 public:
  // heads: those KV heads that this rank attends with; none where it has no queries. max_rows: of
  // them in a step. Arguments must outlive this.
  ContextTail(const ModelConfig& config, Backend& backend, const Communicator& group,
              const DocumentKv& kv, Share heads, std::int64_t max_rows);

  // Brings the tokens here, once. Collective. Throws AgreedError(unfit) where there is no memory.
  void start();
  // Unfinished attention of rows at these positions over the context, in a layer with a window. q
  // [n_rows, heads of this rank * head_dim]. Good until the next call.
  Partial attend(std::int64_t layer, Rows q, const AttentionShape& shape,
                 std::span<const std::int64_t> positions);

  // Bytes that it takes, of all heads.
  static std::uint64_t n_bytes(const ModelConfig& config, std::int64_t n_context, Dtype kv_dtype);

 private:
  struct Layer {
    std::int64_t first_doc = 0, n_tokens = 0;
    Buffer k, v;  // [n_tokens, heads of this rank, head_dim]
  };
  void bring(std::int64_t layer);

  const ModelConfig* config_;
  Backend* backend_;
  const Communicator* group_;
  const DocumentKv* kv_;
  KvLayout whole_, mine_;  // of all heads, of this rank's
  Share heads_;
  std::int64_t max_rows_;
  bool has_started_ = false;
  std::vector<Layer> layers_;  // [n_layers], empty where there is no window
  PartialBuffer partial_;
};

}  // namespace starattn
