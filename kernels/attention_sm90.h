// SPDX-License-Identifier: Apache-2.0
// Launches attention on Hopper. Arguments are checked by the caller (attention.cpp).
#pragma once

#include "attention.h"

namespace starattn::kernels {

// Pieces of keys for phase 2: how many, and how many tiles of keys each has.
struct KeyPieces {
  int n_pieces = 1;
  int tiles_per_piece = 1 << 30;
};

// All keys at once: phase 1.
inline bool are_whole(const KeyPieces& pieces) {
  return pieces.tiles_per_piece == KeyPieces{}.tiles_per_piece;
}

inline constexpr int kKeysPerTile = 128;  // the same in all kernels of phase 2: it shapes the bits

void attention_sm90(const AttentionInput& input, const AttentionOutput& output,
                    const KeyPieces& pieces, Stream stream);

// Segment i is cut into pieces[i] by itself; parts: the pieces of all segments, in order.
void block_attention_sm90(const AttentionInput& input, const Partial& parts,
                          const KeyPieces* pieces, Stream stream);

}  // namespace starattn::kernels
