// SPDX-License-Identifier: Apache-2.0
// From logits to the next token, on the device.
#pragma once

#include <cstdint>

#include "launch.h"

namespace starattn::kernels {

// base/next_token.h says what they mean.
struct Draw {
  double temperature, top_p, unit;
};

// token[i]: drawn from row i of logits [n_rows, n] fp32, any n > 0, which is overwritten; -1 where
// one is not finite, or no token may come. allowed [n_rows, (n + 31) / 32]: bit t % 32 of word
// t / 32 for each token t that may; nullptr: all. draws [n_rows], token and allowed are device
// memory. Weights and a thread's sums of
// them are fp32, sums over threads fp64; a row's token depends on that row and its draw alone.
void next_tokens(float* logits, std::int64_t n_rows, std::int64_t n, const Draw* draws,
                 const std::uint32_t* allowed, std::int32_t* token, Stream stream);

// base/next_token.h says what it means.
struct Highest {
  float logit;
  std::int32_t token;
};

inline constexpr int kHighestParts = 8;  // of a row: one block would take as long as it has columns
// to [n_rows, kHighestParts]: the highest of each part of logits [n_rows, n] fp32, any n, which are
// those of tokens first, first + 1, ... allowed [n_rows, allowed_words]: as above, of all tokens;
// nullptr: all.
void highest_logits(const float* logits, std::int64_t n_rows, std::int64_t n, std::int32_t first,
                    const std::uint32_t* allowed, std::int64_t allowed_words, Highest* to,
                    Stream stream);
// token[i]: what next_tokens() finds without drawing where parts [n_rows, n_parts] are those of
// all of row i's logits.
void best_parts(const Highest* parts, std::int64_t n_rows, std::int64_t n_parts,
                std::int32_t* token, Stream stream);

}  // namespace starattn::kernels
