// SPDX-License-Identifier: Apache-2.0
#include "eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace starattn {
namespace {

struct Softmax {
  std::size_t top = 0;  // the likeliest token
  double log_sum = 0;   // log sum exp: log p = logit - log_sum
};

Softmax softmax_of(std::span<const float> logits, const char* whose) {
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i]))
      fail(Exit::bad_data, "{} logit of token {}: expected a finite number, got {}", whose, i,
           logits[i]);
  }
  const auto top = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - *top);
  return {static_cast<std::size_t>(top - logits.begin()), *top + std::log(sum)};
}

}  // namespace

Divergence divergence(std::span<const float> exact, std::span<const float> other) {
  STARATTN_CHECK(!exact.empty() && exact.size() == other.size());
  const Softmax p = softmax_of(exact, "exact");
  const Softmax q = softmax_of(other, "other");
  double kl = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double log_p = exact[i] - p.log_sum;
    kl += std::exp(log_p) * (log_p - (other[i] - q.log_sum));
  }
  return {std::max(0.0, kl), p.top == q.top};  // below 0 only by rounding
}

double AnswerDivergence::sum() const {
  return std::accumulate(kl.begin(), kl.end(), 0.0);
}

double AnswerDivergence::max() const {
  return kl.empty() ? 0 : *std::max_element(kl.begin(), kl.end());
}

AnswerDivergence compare_logits(std::span<const float> exact, std::span<const float> other,
                                std::int64_t vocab) {
  STARATTN_CHECK(vocab > 0 && exact.size() == other.size());
  const auto width = static_cast<std::size_t>(vocab);
  STARATTN_CHECK(exact.size() % width == 0);
  AnswerDivergence all;
  for (std::size_t at = 0; at < exact.size(); at += width) {
    try {
      const Divergence one = divergence(exact.subspan(at, width), other.subspan(at, width));
      all.kl.push_back(one.kl);
      all.n_same_top += one.same_top;
    } catch (const Error& error) {
      throw error.within(fmt::format("answer token {}", at / width));
    }
  }
  return all;
}

}  // namespace starattn
