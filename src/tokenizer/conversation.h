// SPDX-License-Identifier: Apache-2.0
// Chat markup around the turns of a conversation, whose last one holds the end of the context and
// the question.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/chat.h"

namespace starattn {

// What the template writes in front of, between and behind the texts of messages with these roles,
// the answer's opening included: [roles + 1]. The texts themselves are none of its business, and
// are not trimmed. Throws jinja::NotUnderstood.
std::vector<std::string> run_template(const ChatTemplate& chat_template,
                                      const std::vector<std::string>& roles);

// Markup between two texts, cut at its special tokens.
struct TurnMarkup {
  std::string trail;   // in front of the first one; all of it where it has none
  std::string tokens;  // from the first to the last one
  std::string lead;    // behind the last one
};

// What stands around the texts in a style: by the template where that could be run, else as the
// family writes turns; without markup a blank line stands between messages. Without the prefix that
// every context gets. Throws Error(bad_data) for turns that the style has no markup for.
std::vector<TurnMarkup> markup_around(const ChatStyle& style, const Tokenizer& tokenizer,
                                      const std::vector<std::string>& roles);

// The tokens of all that stands before the question: BOS, turns, the markup of the last turn, and
// `context`, the part of its text that belongs there. around: as above. texts: of the turns before
// the last one.
std::vector<Token> wrap_turns(const std::vector<TurnMarkup>& around, const Tokenizer& tokenizer,
                              const std::vector<std::string_view>& texts, std::string_view context,
                              SpecialTokens special);
// And of the question, with the markup behind it. has_context: a part of its text stands before it.
std::vector<Token> wrap_question(const std::vector<TurnMarkup>& around, const Tokenizer& tokenizer,
                                 bool has_context, std::string_view question,
                                 SpecialTokens special);

}  // namespace starattn
