// SPDX-License-Identifier: Apache-2.0
#include "run/token_logprobs.h"

#include <algorithm>
#include <cmath>

#include "star/sampling.h"

namespace starattn {
namespace {

constexpr std::int64_t kRowsAtOnce = 128;  // bounds the logits that are held

// log(sum of e^logit)
double log_total(std::span<const float> logits) {
  const double highest = *std::ranges::max_element(logits);
  double total = 0;
  for (const float logit : logits) total += std::exp(logit - highest);
  return highest + std::log(total);
}

}  // namespace

TokenLogprobs logprobs_of(std::span<const float> logits, Token chosen, std::int64_t n_top,
                          const Tokenizer& tokenizer) {
  const double total = log_total(logits);
  const auto one = [&](Token token, float logit) -> TokenLogprob {
    return {tokenizer.bytes_of(token), static_cast<float>(logit - total)};
  };
  TokenLogprobs all;
  all.chosen = one(chosen, logits[static_cast<std::size_t>(chosen)]);
  for (const auto& [token, logit] : top_logits(logits, n_top)) all.top.push_back(one(token, logit));
  return all;
}

std::vector<TokenLogprobs> token_logprobs(Answerer& answerer, const QueryTask& query,
                                          const std::vector<Token>& tokens,
                                          const Tokenizer& tokenizer, bool is_first) {
  std::vector<TokenLogprobs> all;
  std::vector<Token> rows = query.job.tokens;  // the last row of these predicts the next token
  for (std::size_t begin = 0; begin < tokens.size();) {
    const std::size_t n = std::min<std::size_t>(kRowsAtOnce, tokens.size() - begin);
    const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(begin);
    rows.insert(rows.end(), first, first + static_cast<std::ptrdiff_t>(n - 1));
    const std::vector<float> logits = answerer.logits_of(rows, static_cast<std::int64_t>(n));
    const std::size_t n_vocab = logits.size() / n;
    for (std::size_t i = 0; is_first && i < n; ++i) {
      all.push_back(logprobs_of(std::span(logits).subspan(i * n_vocab, n_vocab), tokens[begin + i],
                                *query.n_logprobs, tokenizer));
    }
    begin += n;
    if (begin < tokens.size()) rows.push_back(tokens[begin - 1]);
  }
  return all;
}

}  // namespace starattn
