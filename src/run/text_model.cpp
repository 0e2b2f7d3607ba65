// SPDX-License-Identifier: Apache-2.0
#include "run/text_model.h"

namespace starattn {

TextModel open_text_model(const Options& options) {
  TextModel model;
  model.config = read_model_config(options.model);
  model.tokenizer = Tokenizer::open(options.model, model.config.vocab_size);
  model.chat = chat_style_from_name(options.chat, options.model, *model.tokenizer,
                                    options.thinking != "off");
  if (options.query_prefix) model.chat.query_prefix = *options.query_prefix;
  return model;
}

}  // namespace starattn
