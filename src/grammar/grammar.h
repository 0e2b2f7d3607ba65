// SPDX-License-Identifier: Apache-2.0
// Which tokens may come next, so that an answer has a form. A token may come where the answer can
// still be finished behind it; an answer may end where it has the form.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grammar/answer_form.h"
#include "grammar/expressions.h"
#include "grammar/grammar_vocabulary.h"

namespace starattn {

// Bit token % 32 of word token / 32.
using TokenSet = std::vector<std::uint32_t>;

// What an answer begins with that has no part in its form.
enum class Preamble {
  none,
  thinking,          // <think> ... </think> and blanks, which may be left out
  rest_of_thinking,  // the prompt has opened it
};

class Grammar {
 public:
  // Places in the form that one character may match, and for all tokens together, counted once
  // where the same may follow: beyond it a form is refused, because it would take seconds a token.
  static constexpr std::uint32_t kMostWays = 1024;
  static constexpr std::uint64_t kMostWork = std::uint64_t{1} << 17;

  // vocabulary: outlives this. Throws Error(bad_data) as parse_answer_form, and where the
  // vocabulary lacks bytes that every answer has.
  Grammar(const GrammarVocabulary& vocabulary, const AnswerForm& form, Preamble preamble);
  ~Grammar();

  class Automaton;  // the states reached so far; a new one begins when it is full
  // How far an answer has come. It stays what it is.
  struct State {
    std::shared_ptr<Automaton> in;
    Expression rest = kNoText;  // what may follow
    bool is_opening = true;     // nothing was written yet
  };
  State start() const { return {automaton_, start_, true}; }
  // Nothing may follow: the answer has its form.
  static bool is_complete(const State& state) { return state.rest == kEmptyText; }

  // Behind a token; where it is not allowed, a state in which nothing is. The tokens that may come
  // next: EOS where the answer may end, none where the state is of no answer. Both throw
  // Error(bad_data) where the form is too large here, which depends on form and answer alone.
  State after(const State& state, Token token);
  std::shared_ptr<const TokenSet> allowed(const State& state);

 private:
  Expression here(const State& state);
  std::shared_ptr<const TokenSet> short_ones(Expression e, bool is_opening);

  const GrammarVocabulary* vocabulary_;
  std::string name_;  // of the kind of form, in front of messages
  std::shared_ptr<Automaton> automaton_;
  Expression start_ = kNoText;  // in it
};

// An answer on its way.
struct Guide {
  std::shared_ptr<Grammar> grammar;  // none: any token may come
  Grammar::State state;
};

}  // namespace starattn
