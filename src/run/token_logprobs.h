// SPDX-License-Identifier: Apache-2.0
// The probabilities of an answer's tokens, for requests that ask for them. Phase 2 keeps no logits,
// so the answer's rows go through the network once more; they come out with the bits that they had.
#pragma once

#include <vector>

#include "io/answer.h"
#include "run/document_task.h"
#include "star/answer.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

// Of the tokens that `answerer` gave for the query, each with query.n_logprobs others beside it; on
// the group's first rank, none elsewhere. Collective; tokens are the same on every rank.
std::vector<TokenLogprobs> token_logprobs(Answerer& answerer, const QueryTask& query,
                                          const std::vector<Token>& tokens,
                                          const Tokenizer& tokenizer, bool is_first);

// Of one row of logits. chosen: the token that was taken.
TokenLogprobs logprobs_of(std::span<const float> logits, Token chosen, std::int64_t n_top,
                          const Tokenizer& tokenizer);

}  // namespace starattn
