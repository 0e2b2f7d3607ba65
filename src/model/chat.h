// SPDX-License-Identifier: Apache-2.0
// Chat markup around a document and its query. The seam lies between context and query: the context
// half is the same for every query, so it is encoded once.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"

namespace starattn {

enum class ChatStyle { none, llama3, qwen };

// "auto": none unless the folder's tokenizer_config.json (or chat_template.jinja) has a template;
// then the style whose markup tokens the tokenizer knows; an unknown template is refused by naming
// --chat.
ChatStyle chat_style_from_name(std::string_view name, const std::string& model_folder,
                               const Tokenizer& tokenizer);

// Context: tokenizer prefix (BOS), system turn, opening of the user turn, context.
// Query: the query, end of the user turn, header of the assistant turn.
// Markup is inserted as token ids; `text` itself is encoded as `special` says.
std::vector<Token> wrap_context(ChatStyle style, const Tokenizer& tokenizer, std::string_view text,
                                SpecialTokens special);
std::vector<Token> wrap_query(ChatStyle style, const Tokenizer& tokenizer, std::string_view text,
                              SpecialTokens special);

// Tokens that end an answer in this style beside the model's own EOS (<|eot_id|>, <|im_end|>).
std::vector<Token> stop_tokens(ChatStyle style, const Tokenizer& tokenizer);

}  // namespace starattn
