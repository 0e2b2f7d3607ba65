// SPDX-License-Identifier: Apache-2.0
// Chat markup around a document and its query. The seam lies between context and query: the context
// half is the same for every query, so it is encoded once.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace starattn {

// A folder's chat template, and what it may ask for.
struct ChatTemplate {
  std::string source;
  std::string bos_token;
  std::string eos_token;
  bool may_think = true;  // false: it is asked to have the model answer at once (enable_thinking)
};

// What a model's template writes around one user turn, the turn itself cut into context and query:
// opening lead CONTEXT | query_prefix QUERY trail closing
struct ChatStyle {
  std::string name = "none";   // of its family
  std::string opening;         // up to its last special token
  std::string lead;            // encoded with the context: both may share a token
  std::string query_prefix;    // stands between context and query; encoded with the query
  std::string trail;           // encoded with the query
  std::string closing;         // from its first special token on; opens the answer
  std::vector<Token> stops;    // end an answer beside the model's own EOS
  ChatTemplate chat_template;  // that wrote all this; empty where none was run
};

// name: auto, none, llama3, qwen, llama2 or harmony (--chat). "auto": none where the folder has no
// chat template (tokenizer_config.json or chat_template.jinja); else what the template writes when
// it is run (jinja.h) over one user turn. One that we cannot run decides the family by the markup
// in its texts, with a warning that quotes what may be missing, or is refused by naming --chat.
// Where markup is written, a blank line sets the query apart from the context. may_think: as in
// ChatTemplate; throws Error(usage) where the template has no such switch.
ChatStyle chat_style_from_name(std::string_view name, const std::string& model_folder,
                               const Tokenizer& tokenizer, bool may_think = true);

// The same by the rule of version 0.1.0, which did not run templates. None where it refused the
// folder.
std::optional<ChatStyle> chat_style_of_0_1_0(std::string_view name, const std::string& model_folder,
                                             const Tokenizer& tokenizer);

// The tokenizer's prefix (BOS), the markup, the context; and the query, the markup.
// Markup becomes special tokens; `text` itself is encoded as `special` says and never trimmed.
std::vector<Token> wrap_context(const ChatStyle& style, const Tokenizer& tokenizer,
                                std::string_view text, SpecialTokens special);
std::vector<Token> wrap_query(const ChatStyle& style, const Tokenizer& tokenizer,
                              std::string_view text, SpecialTokens special);

std::string describe(const ChatStyle& style);   // one line: the family and all that it writes
std::string markup_of(const ChatStyle& style);  // the same without the query's prefix

}  // namespace starattn
