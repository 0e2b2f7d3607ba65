// SPDX-License-Identifier: Apache-2.0
#include "run/thinking_limit.h"

#include <algorithm>

#include "run/thinking.h"

namespace starattn {

void ThinkingLimit::limit(QueryTask& query) const {
  if (n_tokens_ == 0) return;
  const std::int64_t n_all = query.job.max_new_tokens;
  const std::int64_t n_first = std::min(n_tokens_, n_all - std::ssize(end_of_thinking()) - 1);
  if (n_first < 1) return;
  query.job.max_new_tokens = n_first;
  query.n_later = n_all - n_first;
}

QueryTask ThinkingLimit::second_round(QueryTask query, const std::vector<Token>& tokens,
                                      double seconds) const {
  query.begun = tokens;
  if (split_thought(text_with_tags(tokenizer_, tokens), query.opens_thinking).is_open) {
    const std::vector<Token> end = end_of_thinking();
    query.begun.insert(query.begun.end(), end.begin(), end.end());
  }
  query.begun_seconds = seconds;
  query.job.max_new_tokens = query.job.max_new_tokens + query.n_later - std::ssize(query.begun);
  query.job.tokens.insert(query.job.tokens.end(), query.begun.begin(), query.begun.end());
  query.job.sampling_key = sampling_key(query.job.sampling_key, "", "second round");
  query.n_later = 0;
  return query;
}

// As the models themselves write it.
std::vector<Token> ThinkingLimit::end_of_thinking() const {
  return tokenizer_.encode(fmt::format("\n{}\n\n", kThinkEnd), SpecialTokens::parse);
}

}  // namespace starattn
