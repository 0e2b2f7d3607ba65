// SPDX-License-Identifier: Apache-2.0
#include "run/answering.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {
namespace {

// Why the group's ranks cannot share out the weights, or were not to; empty where they can.
std::string reason_against(const Phase2Options& options, const std::string& transport,
                           const Communicator& group, const Communicator& node) {
  if (options.shard_weights == "off") return "--shard-weights off";
  if (transport == "mpi") return "--transport mpi";
  if (options.merges_along_tree()) return "--merge tree";
  if (group.size() == 1) return "one rank works on a document";
  if (!group.any(node.size() > 1)) return "the ranks that work on a document are alone on a node";
  return "";
}

// Whether this rank's device is to fetch all layers from its host's memory.
bool streams_layers(const std::string& weight_memory, const Backend& backend,
                    const ModelWeights& weights) {
  if (backend.is_host_memory() || weight_memory == "device") return false;
  std::uint64_t n_bytes = 0;
  for (const WeightView& weight : weights.all()) n_bytes += backend.bytes_in_memory(weight);
  return weight_memory == "host" || n_bytes > backend.free_bytes();
}

WeightSharing share_out(const Phase2Options& options, const std::string& transport,
                        const Communicator& group, Backend& backend, const ModelConfig& config,
                        const ModelWeights& weights) {
  auto node = std::make_unique<const Communicator>(group.split_by_node());
  WeightSharing sharing;
  const bool is_asked_for = options.shard_weights == "on" && group.size() > 1;
  sharing.against = reason_against(options, transport, group, *node);
  if (is_asked_for && !sharing.against.empty()) {
    throw AgreedError(Exit::usage,
                      "--shard-weights on: not possible with this: " + sharing.against);
  }
  bool is_connected = sharing.against.empty() && transport != "host";
  if (is_connected) {
    try {
      collectively(group, [&] {
        if (node->size() > 1)
          sharing.links = connect_peers(*node, backend, /*on_one_device=*/transport == "peer");
      });
    } catch (const AgreedError& error) {
      if (transport == "peer") throw;
      sharing.against = error.what();
      sharing.links.reset();
      is_connected = false;
    }
  }
  // Through the host, exchanges cost more than a GPU gains: only where it is asked for.
  if (!is_connected && !is_asked_for) {
    if (sharing.against.empty()) sharing.against = "--transport host";
    return sharing;
  }
  sharing.node = std::move(node);
  sharing.plan = ShardPlan::make(config, sharing.node->size());
  collectively(group, [&] {
    if (!sharing.links) return;
    sharing.layers = backend.share_layers(shared_model(weights, sharing.plan, config.head_dim),
                                          sharing.node->rank());
  });
  return sharing;
}

}  // namespace

WeightSharing share_weights(const Phase2Options& options, const std::string& transport,
                            const std::string& weight_memory, const Communicator& group,
                            Backend& backend, const ModelConfig& config,
                            const ModelWeights& weights) {
  WeightSharing sharing;
  if (weight_memory == "host") {
    sharing.against = "--weight-memory host";
    if (options.shard_weights == "on" && group.size() > 1)
      throw AgreedError(Exit::usage, "--shard-weights on: not possible with --weight-memory host");
  } else {
    sharing = share_out(options, transport, group, backend, config, weights);
  }
  collectively(group, [&] {
    if (!sharing.is_on() && streams_layers(weight_memory, backend, weights))
      sharing.streamed = backend.stream_layers(layer_matrices(weights));
  });
  return sharing;
}

void connect_layers(WeightSharing& sharing) {
  if (!sharing.layers) return;
  const Communicator& node = *sharing.node;
  PeerAddress mine;
  collectively(node, [&] { mine = sharing.layers->address(); });
  const std::vector<PeerAddress> all = node.allgather(mine);
  collectively(node, [&] { sharing.layers->connect(all); });
}

Answering::Answering(const Communicator& group, Decoder& decoder, const ModelWeights& weights,
                     WeightSharing& sharing)
    : decoder_(decoder), exchange_(Answerer::exchange(decoder, group)) {
  if (!sharing.is_on()) {
    description_ = "each rank of a query has all weights: " + sharing.against;
    return;
  }
  const Communicator& node = *sharing.node;
  sharded_ = std::make_unique<ShardedDecoder>(decoder, weights, sharing.plan, node.rank(),
                                              Answerer::kMaxRows);
  shard_exchange_ = Answerer::exchange(*sharded_, group, node, std::move(sharing.links));
  n_shares_ = std::ranges::min(group.allgather(node.size()));
  const int n_nodes = shard_exchange_->n_nodes();
  description_ = fmt::format("weights shared out over {}, exchanges {}",
                             n_nodes == 1 ? fmt::format("{} ranks", node.size())
                                          : fmt::format("the ranks of each of {} nodes", n_nodes),
                             shard_exchange_->name());
}

Answerer Answering::answerer(const DocumentKv& kv, AnswerOptions options) {
  if (sharded_) return {*sharded_, *shard_exchange_, kv, std::move(options)};
  return {decoder_, exchange_, kv, std::move(options)};
}

}  // namespace starattn
