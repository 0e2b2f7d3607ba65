// SPDX-License-Identifier: Apache-2.0
// The grammars that a batch has asked for, over one model's vocabulary.
#pragma once

#include <memory>
#include <vector>

#include "grammar/grammar.h"
#include "run/option_parts.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

// What --schema, --regex or --choice asks for. Throws Error(usage) for more than one of them,
// no_input and bad_data for a schema that cannot be read.
AnswerForm form_of(const FormOptions& options);

class Grammars {
 public:
  // tokenizer: outlives this. size: of a row of logits. eos: tokens that end an answer.
  // tells_thoughts: tokens that are think tags count as text.
  Grammars(const Tokenizer& tokenizer, std::int64_t size, std::vector<Token> eos,
           bool tells_thoughts)
      : tokenizer_(&tokenizer),
        size_(size),
        eos_(std::move(eos)),
        tells_thoughts_(tells_thoughts) {}

  // The grammar of a form that is not text; the newest are kept. Throws Error(bad_data).
  std::shared_ptr<Grammar> of(const AnswerForm& form, Preamble preamble);

 private:
  static constexpr std::size_t kKept = 16;

  struct Known {
    AnswerForm form;
    Preamble preamble;
    std::shared_ptr<Grammar> grammar;
  };

  const Tokenizer* tokenizer_;
  std::int64_t size_;
  std::vector<Token> eos_;
  bool tells_thoughts_;
  std::unique_ptr<GrammarVocabulary> vocabulary_;  // made when it is first needed
  std::vector<Known> known_;                       // the newest last
};

}  // namespace starattn
