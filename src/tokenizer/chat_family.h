// SPDX-License-Identifier: Apache-2.0
// The markup of the chat families that are known by name, and where special tokens stand in a text.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "tokenizer/tokenizer.h"

namespace starattn {

// How a family writes one turn: <open>role<head>text<close>.
struct ChatFamily {
  const char* name;
  const char* begin;  // the BOS, which its templates write themselves; nullptr: they do not
  const char* open;
  const char* head;
  const char* close;
  const char* default_system;  // where the folder has no template; nullptr: no such turn
  const char* stops[2];        // the first one ends a turn
  // What opens the answer, where that is more than a turn's opening. Such a family's templates are
  // programs that we do not run, and every conversation has the default system turn.
  const char* answer = nullptr;

  std::string opening_of_turn(std::string_view role) const {
    return std::string(open) + std::string(role) + head;
  }
};

inline constexpr ChatFamily kLlama3{"llama3",
                                    "<|begin_of_text|>",
                                    "<|start_header_id|>",
                                    "<|end_header_id|>\n\n",
                                    "<|eot_id|>",
                                    nullptr,
                                    {"<|eot_id|>", "<|eom_id|>"}};
inline constexpr ChatFamily kQwen{"qwen",
                                  nullptr,
                                  "<|im_start|>",
                                  "\n",
                                  "<|im_end|>\n",
                                  "You are a helpful assistant.",
                                  {"<|im_end|>", nullptr}};

// GPT-OSS (harmony). The template writes today's date into the system turn, which is left out here,
// so that a document has the same tokens tomorrow; and the answer is opened where the model writes
// what a reader is to see, so it does not think before.
inline constexpr ChatFamily kHarmony{
    "harmony",
    nullptr,
    "<|start|>",
    "<|message|>",
    "<|end|>",
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\n"
    "Reasoning: low\n\n# Valid channels: analysis, commentary, final. Channel must be included for "
    "every message.",
    {"<|return|>", "<|end|>"},
    "<|start|>assistant<|channel|>final<|message|>"};

// Llama 2 and Mistral have no roles: <s>[INST] text [/INST], plain text in older tokenizers.
inline constexpr const char* kLlama2 = "llama2";

// The BOS that a family's templates write themselves; nullptr where they do not.
const char* begin_of_family(std::string_view name);

// `begin`, where it is for the markup to write: the tokenizer has it and puts nothing in front
// itself.
std::string begin_where_due(const char* begin, const Tokenizer& tokenizer);
// A template's beginning without what every context gets in front, and with the BOS where it is
// due.
std::string as_beginning(std::string before, const char* begin, const Tokenizer& tokenizer);

// Where the last special token of a text ends; 0 where it has none.
std::size_t end_of_markup(const std::string& text, const Tokenizer& tokenizer);
// Where a text's first special token begins, and its length; the text's size where it has none.
std::pair<std::size_t, std::size_t> first_markup(const std::string& text,
                                                 const Tokenizer& tokenizer);

}  // namespace starattn
