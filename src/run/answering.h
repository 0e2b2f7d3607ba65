// SPDX-License-Identifier: Apache-2.0
// What phase 2 stands on, made once a group: its exchanges, and the ranks' shares of the weights
// where they share them out (--shard-weights, --transport).
#pragma once

#include <memory>
#include <string>

#include "mpi/communicator.h"
#include "run/option_parts.h"
#include "star/answer.h"

namespace starattn {

// Whether the ranks of a group share out the weights, decided before any are loaded: on every node
// one copy.
struct WeightSharing {
  ShardPlan plan;                        // of this node's ranks; empty: each has them all
  std::unique_ptr<PeerLinks> links;      // nothing: exchanges go through the host
  std::unique_ptr<SharedLayers> layers;  // where devices keep their rows alone
  std::string against;                   // why not
  // Where this rank's device fetches all layers from its host's memory (--weight-memory).
  std::unique_ptr<FetchedLayers> streamed;

  std::unique_ptr<const Communicator> node;  // the ranks of the group on this one's, if it is on

  bool is_on() const { return !plan.heads.empty(); }
  FetchedLayers* fetched() const { return layers ? layers.get() : streamed.get(); }
};

// And where not, whether its device fetches them (weight_memory: auto, device or host). Collective
// over the group. Throws AgreedError: usage where options exclude each other, unfit where what was
// asked for cannot be had here.
WeightSharing share_weights(const Phase2Options& options, const std::string& transport,
                            const std::string& weight_memory, const Communicator& group,
                            Backend& backend, const ModelConfig& config,
                            const ModelWeights& weights);
// Once all ranks have loaded what they keep. Collective over the group.
void connect_layers(WeightSharing& sharing);

class Answering {
 public:
  // Collective over the group; arguments outlive this. It takes the sharing's links.
  Answering(const Communicator& group, Decoder& decoder, const ModelWeights& weights,
            WeightSharing& sharing);

  Answerer answerer(const DocumentKv& kv, AnswerOptions options);

  // Of the nodes, the fewest ranks that share out the weights; 0: a query's rank has them all.
  int n_shares() const { return n_shares_; }
  // "weights shared out over 2 ranks, exchanges from device to device", or why they are not.
  const std::string& describe() const { return description_; }

 private:
  Decoder& decoder_;
  QueryExchange exchange_;
  std::unique_ptr<ShardedDecoder> sharded_;
  std::unique_ptr<ShardExchange> shard_exchange_;
  int n_shares_ = 0;
  std::string description_;
};

}  // namespace starattn
