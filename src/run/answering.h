// SPDX-License-Identifier: Apache-2.0
// What phase 2 stands on, made once a group: its exchanges, and the ranks' shares of the weights
// where they share them out (--shard-weights, --transport).
#pragma once

#include <memory>
#include <string>

#include "mpi/communicator.h"
#include "run/options.h"
#include "star/answer.h"

namespace starattn {

class Answering {
 public:
  // Collective over the group; arguments outlive this. Throws AgreedError: usage where options
  // exclude each other, unfit where what was asked for cannot be had here.
  Answering(const Options& options, const Communicator& group, Decoder& decoder,
            const ModelWeights& weights);

  Answerer answerer(const DocumentKv& kv, AnswerOptions options);

  // Ranks that share out the weights; 1: a query's rank has them all.
  int n_shares() const { return sharded_ ? exchange_.group().size() : 1; }
  // "weights shared out over 2 ranks, exchanges from device to device", or why they are not.
  const std::string& describe() const { return description_; }

 private:
  Decoder& decoder_;
  QueryExchange exchange_;
  std::unique_ptr<ShardedDecoder> sharded_;
  std::unique_ptr<ShardExchange> shard_exchange_;
  std::string description_;
};

}  // namespace starattn
