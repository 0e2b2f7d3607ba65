// SPDX-License-Identifier: Apache-2.0
// Through memory of the node, moved by the host: on any device.
#pragma once

#include "exchange/shard_exchange.h"

namespace starattn {

// Nothing where the node has no room for it. Collective.
std::unique_ptr<ShardExchange> make_host_shard_exchange(const Communicator& group, Backend& backend,
                                                        const AttentionShape& shape,
                                                        std::vector<Share> heads,
                                                        std::int64_t max_rows);

}  // namespace starattn
