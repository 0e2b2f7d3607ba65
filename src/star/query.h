// SPDX-License-Identifier: Apache-2.0
// What phase 2 is asked, and what it answers.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/next_token.h"
#include "star/sampling.h"

namespace starattn {

struct QueryJob {
  std::vector<Token> tokens;  // the query, at positions n_context ..
  std::int64_t max_new_tokens = 128;
  std::uint64_t sampling_key = 0;
  Sampling sampling = {};
};

enum class FinishReason { not_begun, stop, length, overflow };

struct QueryResult {
  std::vector<Token> tokens;  // new tokens; ends with the EOS when that is why it stopped
  FinishReason reason = FinishReason::not_begun;
  std::vector<std::pair<Token, float>> logprobs;  // the first new token's top logits
  double seconds = 0;                             // from the start of phase 2 to its last token
  std::string error;                              // where values overflowed, if that is the reason
};

}  // namespace starattn
