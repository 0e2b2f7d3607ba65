// SPDX-License-Identifier: Apache-2.0
// The exchanges of other links, each a span on the device's clock and a message: what waits for
// other devices counts as an operation, too. Nothing else changes.
#pragma once

#include <memory>

#include "backend/peer_links.h"
#include "trace/span.h"

namespace starattn {

// The clock outlives the links.
std::unique_ptr<PeerLinks> make_timed_links(std::unique_ptr<PeerLinks> links,
                                            trace::DeviceClock* clock);

}  // namespace starattn
