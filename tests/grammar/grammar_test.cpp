// SPDX-License-Identifier: Apache-2.0
#include "grammar/grammar.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>

#include "base/error.h"
#include "base/random.h"
#include "matching.h"

namespace starattn {
namespace {

using testing::all_texts;

constexpr Token kEos = 0;

// Token 0 is EOS, the others have these texts.
GrammarVocabulary vocabulary_of(std::vector<std::string> texts) {
  texts.insert(texts.begin(), "<end>");
  const std::int64_t size = std::ssize(texts) + 3;  // rows of logits are longer
  return GrammarVocabulary(size, texts, {}, {kEos});
}

std::vector<std::string> every_byte() {
  std::vector<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
  return texts;
}

bool has(const TokenSet& set, Token token) {
  return (set[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1) != 0;
}

AnswerForm regex_form(const std::string& regex) {
  return {AnswerForm::Kind::regex, {regex}};
}

// Of at most 2^depth characters.
std::string random_regex(Random& random, int depth) {
  if (depth == 0) return std::string(1, "abc"[random.below(3)]);
  const auto part = [&] { return random_regex(random, depth - 1); };
  switch (random.below(5)) {
    case 0:
      return "(" + part() + "|" + part() + ")";
    case 1:
      return "(" + part() + ")?";
    case 2:
      return "(" + part() + "){1,2}";
    default:
      return part() + part();
  }
}

// By definition: a token may come where some text of the language begins with what was written and
// the token.
TEST(Grammar, ATokenIsAllowedWhereTheAnswerCanBeFinishedBehindIt) {
  const GrammarVocabulary vocabulary =
      vocabulary_of({"a", "b", "c", "ab", "ba", "abc", "bc", "ccc", "cab", "aa", "a", ""});
  const std::vector<std::string> texts = all_texts(8);
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const std::string text = random_regex(random, 3);
    const std::regex regex(text);
    std::vector<std::string> language;
    for (const std::string& candidate : texts)
      if (std::regex_match(candidate, regex)) language.push_back(candidate);
    if (language == std::vector<std::string>{""}) continue;
    Grammar grammar(vocabulary, regex_form(text), Preamble::none);
    for (int attempt = 0; attempt < 10; ++attempt) {
      Grammar::State state = grammar.start();
      std::string written;
      for (;;) {
        const std::shared_ptr<const TokenSet> set = grammar.allowed(state);
        std::vector<Token> allowed;
        for (Token token = 0; token < vocabulary.size(); ++token) {
          const std::string& more = vocabulary.text(token, false);
          const bool expected =
              token == kEos ? std::ranges::count(language, written) > 0
                            : !more.empty() && std::ranges::any_of(language, [&](const auto& t) {
                                return t.starts_with(written + more);
                              });
          ASSERT_EQ(has(*set, token), expected) << text << ": " << written << " + " << more;
          if (expected) allowed.push_back(token);
        }
        ASSERT_FALSE(allowed.empty());
        const Token token = random.pick(allowed);
        if (token == kEos) break;
        written += vocabulary.text(token, false);
        state = grammar.after(state, token);
        if (Grammar::is_complete(state)) {
          ASSERT_EQ(std::ranges::count(language, written), 1);
          break;
        }
      }
    }
  }
}

TEST(Grammar, TokensMayBePartsOfCharacters) {
  std::vector<std::string> texts = every_byte();
  texts.insert(texts.end(), {"é", "\xa9x", "x\xc3", "\x80", "😀"});
  const GrammarVocabulary vocabulary = vocabulary_of(texts);
  const auto token = [&](const std::string& text) {
    for (Token t = 1; t < vocabulary.size(); ++t)
      if (vocabulary.text(t, false) == text) return t;
    return kNoToken;
  };
  Grammar grammar(vocabulary, regex_form("[éx]{2,4}"), Preamble::none);
  Grammar::State state = grammar.start();
  EXPECT_TRUE(has(*grammar.allowed(state), token("é")));
  EXPECT_TRUE(has(*grammar.allowed(state), token("\xc3")));
  EXPECT_TRUE(has(*grammar.allowed(state), token("x\xc3")));
  EXPECT_FALSE(has(*grammar.allowed(state), token("\xa9x")));
  state = grammar.after(state, token("x\xc3"));
  EXPECT_TRUE(has(*grammar.allowed(state), token("\xa9x")));
  EXPECT_TRUE(has(*grammar.allowed(state), token("\xa9")));
  EXPECT_FALSE(has(*grammar.allowed(state), token("x")));
  EXPECT_FALSE(has(*grammar.allowed(state), kEos)) << "in the middle of a character";
  state = grammar.after(state, token("\xa9"));
  EXPECT_TRUE(has(*grammar.allowed(state), kEos));
}

// Without a token for a byte, other ways have to do.
TEST(Grammar, WhatHasNoTokenIsNoWay) {
  const GrammarVocabulary vocabulary = vocabulary_of({"a", "b", "é", "ac"});
  Grammar grammar(vocabulary, regex_form("a(b|c|éb|éc|cb)"), Preamble::none);
  EXPECT_TRUE(has(*grammar.allowed(grammar.start()), 4)) << "ac is a token";
  const Grammar::State behind_a = grammar.after(grammar.start(), 1);
  EXPECT_TRUE(has(*grammar.allowed(behind_a), 2));
  EXPECT_TRUE(has(*grammar.allowed(behind_a), 3));
  const Grammar::State behind_e = grammar.after(behind_a, 3);
  EXPECT_TRUE(has(*grammar.allowed(behind_e), 2));
  try {
    const Grammar impossible(vocabulary, regex_form("a[c-z]b"), Preamble::none);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("no tokens for bytes"), std::string::npos);
  }
}

// SentencePiece drops the space of an answer's first token.
TEST(Grammar, TheFirstTokenHasATextOfItsOwn) {
  const GrammarVocabulary vocabulary(8, {"<end>", " yes", "yes", " ", "y", "e", "s"},
                                     {"<end>", "yes", "yes", "", "y", "e", "s"}, {kEos});
  Grammar grammar(vocabulary, {AnswerForm::Kind::choice, {"yes", "yes yes"}}, Preamble::none);
  EXPECT_EQ((*grammar.allowed(grammar.start()))[0], 0b10110u);
  const Grammar::State state = grammar.after(grammar.start(), 1);
  EXPECT_EQ((*grammar.allowed(state))[0], 0b1011u) << "EOS, a second yes, a space";
}

TEST(Grammar, ThinkingComesBeforeTheAnswer) {
  std::vector<std::string> texts = every_byte();
  texts.insert(texts.end(), {"</think>", "hm", "</think>\n\n", "think>\nyes", "<think>"});
  const GrammarVocabulary vocabulary = vocabulary_of(texts);
  const auto token = [&](const std::string& text) {
    for (Token t = 1; t < vocabulary.size(); ++t)
      if (vocabulary.text(t, false) == text) return t;
    return kNoToken;
  };
  const AnswerForm form{AnswerForm::Kind::choice, {"yes", "no"}};
  Grammar open(vocabulary, form, Preamble::rest_of_thinking);
  Grammar::State state = open.start();
  EXPECT_TRUE(has(*open.allowed(state), token("hm")));
  EXPECT_FALSE(has(*open.allowed(state), kEos));
  state = open.after(state, token("hm"));
  state = open.after(state, token("</think>\n\n"));
  EXPECT_FALSE(has(*open.allowed(state), token("hm")));
  EXPECT_TRUE(has(*open.allowed(state), token("y")));
  // A token that ends the thinking in its middle has to go on with an answer.
  state = open.after(open.after(open.start(), token("<")), token("/"));
  EXPECT_TRUE(has(*open.allowed(state), token("think>\nyes")));
  EXPECT_TRUE(Grammar::is_complete(open.after(state, token("think>\nyes"))));
  Grammar perhaps(vocabulary, form, Preamble::thinking);
  EXPECT_TRUE(has(*perhaps.allowed(perhaps.start()), token("<think>")));
  EXPECT_TRUE(has(*perhaps.allowed(perhaps.start()), token("n")));
  EXPECT_FALSE(has(*perhaps.allowed(perhaps.start()), token("hm")));
}

// An automaton that is full is replaced: states of the old one go on in the new one.
TEST(Grammar, MemoryIsBoundedAndNothingChanges) {
  const GrammarVocabulary vocabulary = vocabulary_of(every_byte());
  // Each length leaves a state of its own.
  const AnswerForm form = regex_form("((a|b){1,900000}c)*");
  Grammar grammar(vocabulary, form, Preamble::none);
  const Token a = 1 + 'a';
  Grammar::State state = grammar.start();
  const Grammar::State first = grammar.after(state, a);
  const TokenSet behind_first = *grammar.allowed(first);
  const Grammar::Automaton* automaton = first.in.get();
  for (int i = 0; i < 100'000; ++i) state = grammar.after(state, a);
  EXPECT_NE(state.in.get(), automaton);
  EXPECT_EQ(*grammar.allowed(first), behind_first);
  EXPECT_EQ(*grammar.allowed(state), behind_first);
  Grammar fresh(vocabulary, form, Preamble::none);
  EXPECT_EQ(*grammar.allowed(grammar.start()), *fresh.allowed(fresh.start()));
}

TEST(Grammar, WhatTakesTooLongIsRefused) {
  const GrammarVocabulary vocabulary = vocabulary_of(
      {"a", "b", std::string(2000, 'a'), std::string(1000, 'a') + std::string(1000, 'b')});
  const char* regexes[] = {"(a|b)*a(a|b){100000}(a?){100000}", "(a?b?){5000}"};
  for (const char* regex : regexes) {
    SCOPED_TRACE(regex);
    try {
      Grammar grammar(vocabulary, regex_form(regex), Preamble::none);
      Grammar::State state = grammar.start();
      for (int i = 0; i < 10'000; ++i) state = grammar.after(state, 1 + i % 2);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_data);
    }
  }
}

TEST(Grammar, AnEmptyFormIsRefused) {
  const GrammarVocabulary vocabulary = vocabulary_of({"a"});
  const AnswerForm forms[] = {{AnswerForm::Kind::choice, {}},
                              {AnswerForm::Kind::choice, {"a", ""}},
                              {AnswerForm::Kind::regex, {""}}};
  for (const AnswerForm& form : forms)
    EXPECT_THROW(Grammar(vocabulary, form, Preamble::none), Error);
}

}  // namespace
}  // namespace starattn
