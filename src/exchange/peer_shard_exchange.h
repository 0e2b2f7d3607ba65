// SPDX-License-Identifier: Apache-2.0
// From device to device, in the devices' order, without the host.
#pragma once

#include "exchange/shard_exchange.h"

namespace starattn {

std::unique_ptr<ShardExchange> make_peer_shard_exchange(const Communicator& group, Backend& backend,
                                                        const AttentionShape& shape,
                                                        std::vector<Share> heads,
                                                        std::int64_t max_rows,
                                                        std::unique_ptr<PeerLinks> links);

}  // namespace starattn
