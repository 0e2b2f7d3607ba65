// SPDX-License-Identifier: Apache-2.0
// Mailboxes in GPU memory that the processes of a node open to each other (CUDA IPC).
#pragma once

#include <memory>

#include "backend/cuda/device.h"
#include "backend/cuda/device_weights.h"
#include "backend/cuda/mail.h"
#include "backend/peer_links.h"

namespace starattn::cuda {

// n_ranks: this one among them. Throws Error(unfit) where there is no memory for its mailbox.
std::unique_ptr<PeerLinks> make_peer_links(Device& device, DeviceWeights& weights, Mail& mail,
                                           int n_ranks);

}  // namespace starattn::cuda
