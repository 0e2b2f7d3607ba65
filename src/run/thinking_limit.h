// SPDX-License-Identifier: Apache-2.0
// --thinking-tokens: an answer in two rounds. The first has as many tokens as may be thought;
// thinking that is not over by then is ended, and the second round goes on from there.
#pragma once

#include <cstdint>
#include <vector>

#include "run/document_task.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

class ThinkingLimit {
 public:
  // n_tokens: 0: none, and every answer has one round. tokenizer: outlives this.
  ThinkingLimit(std::int64_t n_tokens, const Tokenizer& tokenizer)
      : n_tokens_(n_tokens), tokenizer_(tokenizer) {}

  // The first round, and what it leaves for a second one, where the end of the thinking finds room.
  void limit(QueryTask& query) const;
  // The second round. tokens, seconds: of the first.
  QueryTask second_round(QueryTask query, const std::vector<Token>& tokens, double seconds) const;

 private:
  std::vector<Token> end_of_thinking() const;

  std::int64_t n_tokens_;
  const Tokenizer& tokenizer_;
};

}  // namespace starattn
