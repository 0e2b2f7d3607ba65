// SPDX-License-Identifier: Apache-2.0
// What a reasoning model says to itself before it answers: <think> ... </think>. The first tag may
// stand in the prompt.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace starattn {

inline constexpr std::string_view kThinkBegin = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";

// Whether a prompt ends inside: with the first tag and blanks.
bool opens_thinking(std::string_view prompt);

struct Thought {
  std::optional<std::string> reasoning;  // none where nothing was thought
  std::string answer;                    // empty where the thinking has no end
  bool is_open = false;                  // it has none
};

// is_inside: the prompt opens the thinking. Blanks around the reasoning and in front of the answer
// are left out.
Thought split_thought(std::string_view text, bool is_inside);

// Text as StreamDecoder and decode(skip_special) give it, but with the tags, where they are
// special.
std::string text_with_tags(const Tokenizer& tokenizer, std::span<const Token> tokens);
// "<think>" or "</think>" for these tokens, nothing for others.
std::string_view tag_of(const Tokenizer& tokenizer, Token token);

}  // namespace starattn
