// SPDX-License-Identifier: Apache-2.0
#include "run/answering.h"

#include "base/error.h"

namespace starattn {
namespace {

// Why the group's ranks cannot share out the weights, or were not to; empty where they can.
std::string reason_against(const Options& options, const Communicator& group,
                           const ModelConfig& config) {
  if (options.shard_weights == "off") return "--shard-weights off";
  if (options.query_ranks == "all") return "--query-ranks all";
  if (options.merge == "tree") return "--merge tree";
  if (config.mixture.n_experts > 0) return "the model is a mixture of experts";
  if (group.size() == 1) return "one rank works on a document";
  const Communicator node = group.split_by_node();
  if (group.any(node.size() < group.size()))
    return "the ranks that work on a document are on several nodes";
  return "";
}

}  // namespace

Answering::Answering(const Options& options, const Communicator& group, Decoder& decoder,
                     const ModelWeights& weights)
    : decoder_(decoder), exchange_(Answerer::exchange(decoder, group)) {
  const bool is_asked_for = options.shard_weights == "on";
  std::string against = reason_against(options, group, decoder.config());
  if (is_asked_for && !against.empty() && group.size() > 1)
    throw AgreedError(Exit::usage, "--shard-weights on: not possible with this: " + against);
  std::unique_ptr<PeerLinks> links;
  if (against.empty() && options.transport != "host") {
    try {
      links =
          connect_peers(group, decoder.backend(), /*on_one_device=*/options.transport == "peer");
    } catch (const AgreedError& error) {
      if (options.transport == "peer") throw;
      against = error.what();
    }
  }
  if (against.empty() && !links) against = "--transport host";
  // Through the host, exchanges cost more than a GPU gains: only where it is asked for.
  if (!links && (!is_asked_for || group.size() == 1)) {
    description_ = "each rank of a query has all weights: " + against;
    return;
  }
  sharded_ = std::make_unique<ShardedDecoder>(decoder, weights,
                                              ShardPlan::make(decoder.config(), group.size()),
                                              group.rank(), Answerer::kMaxRows);
  shard_exchange_ = Answerer::exchange(*sharded_, group, std::move(links));
  description_ = fmt::format("weights shared out over {} ranks, exchanges {}", group.size(),
                             shard_exchange_->name());
}

Answerer Answering::answerer(const DocumentKv& kv, AnswerOptions options) {
  if (sharded_) return {*sharded_, *shard_exchange_, kv, std::move(options)};
  return {decoder_, exchange_, kv, std::move(options)};
}

}  // namespace starattn
