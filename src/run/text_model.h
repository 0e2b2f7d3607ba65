// SPDX-License-Identifier: Apache-2.0
// What of a model turns texts into tokens, and back: all that needs no weights.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "model/config.h"
#include "run/grammars.h"
#include "run/option_parts.h"
#include "tokenizer/chat.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

struct TextModel {
  std::string folder;
  TextOptions text_options;
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  ChatStyle chat;
  AnswerForm form;  // of answers whose query does not say one
  std::unique_ptr<Grammars> grammars;
  std::map<Token, std::string> unusable_tokens;  // and why; of a loaded model
};

// folder: a model's; form: of answers whose query does not say one. Throws Error(no_input |
// bad_data | usage).
TextModel open_text_model(const std::string& folder, const TextOptions& options,
                          const FormOptions& form);
// That answers can have the options' form. Throws Error(usage | bad_data).
void check_form(const TextModel& model, const FormOptions& options);

}  // namespace starattn
