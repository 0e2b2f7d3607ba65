// SPDX-License-Identifier: Apache-2.0
#include "run/answering.h"

#include "base/error.h"

namespace starattn {
namespace {

// Why the group's ranks cannot share out the weights, or were not to; empty where they can.
std::string reason_against(const Options& options, const Communicator& group) {
  if (options.shard_weights == "off") return "--shard-weights off";
  if (options.transport == "mpi") return "--transport mpi";
  if (options.query_ranks == "all") return "--query-ranks all";
  if (options.merge == "tree") return "--merge tree";
  if (group.size() == 1) return "one rank works on a document";
  const Communicator node = group.split_by_node();
  if (group.any(node.size() < group.size()))
    return "the ranks that work on a document are on several nodes";
  return "";
}

}  // namespace

WeightSharing share_weights(const Options& options, const Communicator& group, Backend& backend,
                            const ModelConfig& config, const ModelWeights& weights) {
  WeightSharing sharing;
  const bool is_asked_for = options.shard_weights == "on" && group.size() > 1;
  sharing.against = reason_against(options, group);
  if (is_asked_for && !sharing.against.empty()) {
    throw AgreedError(Exit::usage,
                      "--shard-weights on: not possible with this: " + sharing.against);
  }
  if (sharing.against.empty() && options.transport != "host") {
    try {
      sharing.links = connect_peers(group, backend, /*on_one_device=*/options.transport == "peer");
    } catch (const AgreedError& error) {
      if (options.transport == "peer") throw;
      sharing.against = error.what();
    }
  }
  // Through the host, exchanges cost more than a GPU gains: only where it is asked for.
  if (!sharing.links && !is_asked_for) {
    if (sharing.against.empty()) sharing.against = "--transport host";
    return sharing;
  }
  sharing.plan = ShardPlan::make(config, group.size());
  if (!sharing.links) return sharing;
  collectively(group, [&] {
    sharing.layers =
        backend.share_layers(shared_model(weights, sharing.plan, config.head_dim), group.rank());
  });
  return sharing;
}

void connect_layers(WeightSharing& sharing, const Communicator& group) {
  if (!sharing.layers) return;
  PeerAddress mine;
  collectively(group, [&] { mine = sharing.layers->address(); });
  const std::vector<PeerAddress> all = group.allgather(mine);
  collectively(group, [&] { sharing.layers->connect(all); });
}

Answering::Answering(const Communicator& group, Decoder& decoder, const ModelWeights& weights,
                     WeightSharing& sharing)
    : decoder_(decoder), exchange_(Answerer::exchange(decoder, group)) {
  if (!sharing.is_on()) {
    description_ = "each rank of a query has all weights: " + sharing.against;
    return;
  }
  sharded_ = std::make_unique<ShardedDecoder>(decoder, weights, sharing.plan, group.rank(),
                                              Answerer::kMaxRows);
  shard_exchange_ = Answerer::exchange(*sharded_, group, std::move(sharing.links));
  description_ = fmt::format("weights shared out over {} ranks, exchanges {}", group.size(),
                             shard_exchange_->name());
}

Answerer Answering::answerer(const DocumentKv& kv, AnswerOptions options) {
  if (sharded_) return {*sharded_, *shard_exchange_, kv, std::move(options)};
  return {decoder_, exchange_, kv, std::move(options)};
}

}  // namespace starattn
