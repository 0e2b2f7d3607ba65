// SPDX-License-Identifier: Apache-2.0
// How far one next-token distribution is from another, given the logits of both.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace starattn {

// At one position.
struct Divergence {
  double kl = 0;          // nats, >= 0
  bool same_top = false;  // both have the same likeliest token; ties go to the lower id
};

// KL(exact || other) = sum over tokens of p (log p - log q), p and q the softmax of the two rows
// (Kullback and Leibler 1951, "On Information and Sufficiency"), in fp64. Throws Error(bad_data)
// naming the first logit that is NaN or infinite. Bug unless both rows have the same size, not 0.
Divergence divergence(std::span<const float> exact, std::span<const float> other);

// Along the tokens of one answer.
struct AnswerDivergence {
  std::vector<double> kl;       // [n_positions], nats
  std::int64_t n_same_top = 0;  // positions

  double sum() const;
  double max() const;  // 0 for no position
};

// exact, other: [n_positions, vocab]. Throws as above, naming the position.
AnswerDivergence compare_logits(std::span<const float> exact, std::span<const float> other,
                                std::int64_t vocab);

}  // namespace starattn
