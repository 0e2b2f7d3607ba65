// SPDX-License-Identifier: Apache-2.0
// Several nodes, each with one copy of the weights that its ranks share out: q goes to the ranks of
// all nodes, and partials to those whose rows and heads they are, as MPI messages.
#pragma once

#include "exchange/shard_exchange.h"

namespace starattn {

// within: exchanges of the node's ranks; nothing where this rank is alone on its node. Collective
// over the group.
std::unique_ptr<ShardExchange> make_node_shard_exchange(const Communicator& group,
                                                        const Communicator& node, Backend& backend,
                                                        const AttentionShape& shape,
                                                        std::vector<Share> heads,
                                                        std::int64_t max_rows,
                                                        std::unique_ptr<ShardExchange> within);

}  // namespace starattn
