// SPDX-License-Identifier: Apache-2.0
#include "backend/scratch.h"

namespace starattn {
namespace {

// Whether a piece of `a` bytes serves better than one of `b`: the smallest that is large enough
// does, or else the largest.
bool serves_better(std::size_t a, std::size_t b, std::size_t n_bytes) {
  const bool is_enough = a >= n_bytes;
  if (is_enough != (b >= n_bytes)) return is_enough;
  return is_enough ? a < b : a > b;
}

}  // namespace

Buffer Scratch::take(std::size_t n_bytes) {
  Piece* best = nullptr;
  for (const auto& piece : pieces_) {
    if (piece->is_taken) continue;
    if (!best || serves_better(piece->memory.n_bytes(), best->memory.n_bytes(), n_bytes))
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
