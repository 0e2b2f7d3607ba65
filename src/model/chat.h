// SPDX-License-Identifier: Apache-2.0
// Chat markup around a document and its query. The seam lies between context and query: the context
// half is the same for every query, so it is encoded once.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"

namespace starattn {

// Two families of markup, each with the system turn that its models' own templates write when the
// conversation has none.
enum class ChatStyle {
  none,
  llama3,   // no system turn
  llama31,  // "Cutting Knowledge Date: December 2023 / Today Date: 26 Jul 2024" (3.1 and 3.2)
  qwen,     // "You are a helpful assistant." (Qwen2)
  qwen25,   // "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
  qwen3,    // no system turn
};

// name: auto, none, llama3 or qwen (--chat); of a family, the member that the folder's chat
// template (tokenizer_config.json or chat_template.jinja) belongs to, the first one where it has no
// template. "auto": none unless the folder has a template; then the family whose markup tokens the
// tokenizer knows; an unknown template is refused by naming --chat.
ChatStyle chat_style_from_name(std::string_view name, const std::string& model_folder,
                               const Tokenizer& tokenizer);

// Context: tokenizer prefix (BOS), system turn, opening of the user turn, context.
// Query: the query, end of the user turn, header of the assistant turn.
// Markup becomes special tokens; `text` itself is encoded as `special` says and never trimmed.
std::vector<Token> wrap_context(ChatStyle style, const Tokenizer& tokenizer, std::string_view text,
                                SpecialTokens special);
std::vector<Token> wrap_query(ChatStyle style, const Tokenizer& tokenizer, std::string_view text,
                              SpecialTokens special);

// Tokens that end an answer in this style beside the model's own EOS (<|eot_id|>, <|im_end|>).
std::vector<Token> stop_tokens(ChatStyle style, const Tokenizer& tokenizer);

}  // namespace starattn
