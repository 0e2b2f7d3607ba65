// SPDX-License-Identifier: Apache-2.0
// What of a model turns texts into tokens, and back: all that needs no weights.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "model/config.h"
#include "run/options.h"
#include "tokenizer/chat.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

struct TextModel {
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  ChatStyle chat;
  std::map<Token, std::string> unusable_tokens;  // and why; of a loaded model
};

// As --model, --chat and --query-prefix say. Throws Error(no_input | bad_data | usage).
TextModel open_text_model(const Options& options);

}  // namespace starattn
