// SPDX-License-Identifier: Apache-2.0
#include "backend/scratch.h"

#include <algorithm>

namespace starattn {
Buffer Scratch::take(std::size_t n_bytes) {
  Piece* best = nullptr;  // the smallest that is large enough, or else the largest
  for (const auto& piece : pieces_) {
    if (piece->is_taken) continue;
    const std::size_t has = piece->memory.n_bytes(), best_has = best ? best->memory.n_bytes() : 0;
    const bool fits = has >= n_bytes, best_fits = best && best_has >= n_bytes;
    if (!best || (fits && !best_fits) ||
        (fits == best_fits && (fits ? has < best_has : has > best_has)))
      best = piece.get();
  }
  if (!best) best = pieces_.emplace_back(std::make_unique<Piece>(Piece{this, {}})).get();
  if (best->memory.n_bytes() < n_bytes) {
    best->memory = Buffer();  // first, so that no more is taken than has to be
    best->memory = allocate_(n_bytes);
  }
  best->is_taken = true;
  return {best->memory.data(), n_bytes, give_back, best};
}

std::size_t Scratch::n_kept_bytes() const {
  std::size_t sum = 0;
  for (const auto& piece : pieces_) sum += piece->memory.n_bytes();
  return sum;
}

void Scratch::give_back(void* /*memory*/, void* piece) {
  auto* given = static_cast<Piece*>(piece);
  given->is_taken = false;
  Scratch& scratch = *given->owner;
  if (scratch.n_kept_bytes() <= kMostKept) return;
  std::erase_if(scratch.pieces_, [&](const auto& kept) { return kept.get() == given; });
}

}  // namespace starattn
