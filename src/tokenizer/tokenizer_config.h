// SPDX-License-Identifier: Apache-2.0
// What tokenizer_config.json (and its companions) says beside the tokenizer itself.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"

namespace starattn {

struct TokenizerConfig {
  bool is_llama_class = false;  // the tokenizer_class; without one, what the model_type stands for
  std::optional<bool> add_bos_token;
  std::string bos_token;                 // its content; empty when none is named
  std::string eos_token;                 // the same
  std::vector<AddedToken> added_tokens;  // for a tokenizer.model, which does not list them
  std::string chat_template;             // empty when there is none
};

// Missing files leave everything unset. Throws Error(bad_data) naming file and key.
TokenizerConfig read_tokenizer_config(const std::string& folder);

}  // namespace starattn
