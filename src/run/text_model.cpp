// SPDX-License-Identifier: Apache-2.0
#include "run/text_model.h"

#include "base/error.h"

namespace starattn {

TextModel open_text_model(const std::string& folder, const TextOptions& options,
                          const FormOptions& form) {
  TextModel model;
  model.folder = folder;
  model.text_options = options;
  model.config = read_model_config(folder);
  model.tokenizer = Tokenizer::open(folder, model.config.vocab_size);
  model.chat =
      chat_style_from_name(options.chat, folder, *model.tokenizer, options.thinking != "off");
  if (options.query_prefix) model.chat.query_prefix = *options.query_prefix;
  model.form = form_of(form);
  std::vector<Token> eos = model.config.eos_tokens;
  eos.insert(eos.end(), model.chat.stops.begin(), model.chat.stops.end());
  model.grammars = std::make_unique<Grammars>(*model.tokenizer, model.config.vocab_size,
                                              std::move(eos), options.splits_thinking());
  return model;
}

void check_form(const TextModel& model, const FormOptions& options) {
  if (model.form.kind == AnswerForm::Kind::text) return;
  try {
    model.grammars->of(model.form, Preamble::none);
  } catch (const Error& error) {
    if (model.form.kind == AnswerForm::Kind::schema)
      throw Error(Exit::bad_data, fmt::format("{}: {}", options.schema, error.what()));
    throw Error(Exit::usage, error.what());
  }
}

}  // namespace starattn
