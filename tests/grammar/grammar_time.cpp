// SPDX-License-Identifier: Apache-2.0
// How long the host takes to find the tokens that may come next (docs/structured-output.md). Not a
// test: build the target grammar_time and run it, with a file of tokens, one a line in hexadecimal,
// or with none for 128,256 made-up ones.
#include <algorithm>
#include <cstdio>
#include <fstream>

#include "base/clock.h"
#include "base/random.h"
#include "grammar/grammar.h"

using namespace starattn;

namespace {

constexpr std::int64_t kTokens = 128'256;  // Llama 3's

// All bytes, then words of two or three syllables as large vocabularies have them: small, capital,
// with a space, with an ending, and some in Greek letters.
std::vector<std::string> made_up_tokens() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  const std::vector<std::string> latin = {"an", "be", "co",  "de",  "er", "fi",  "gra", "in",
                                          "ko", "li", "mat", "nor", "on", "pre", "re",  "st",
                                          "ta", "un", "ver", "wa",  "ya", "zu"};
  const std::vector<std::string> greek = {"αλ", "βε", "γο", "δι", "ερ",
                                          "θη", "κα", "λο", "μα", "νι"};
  const std::vector<std::string> ends = {"",   "",  "",  "s",   "ed", "ing",
                                         "\"", ",", "_", "();", "\n", "=\""};
  Random random(1);
  while (std::ssize(tokens) < kTokens) {
    const bool is_greek = random.below(5) == 0;
    std::string token = random.below(2) == 0 ? " " : "";
    for (std::uint64_t n = 1 + random.below(4); n > 0; --n)
      token += random.pick(is_greek ? greek : latin);
    tokens.push_back(token + random.pick(ends));
  }
  return tokens;
}

std::vector<std::string> tokens_of(const char* path) {
  std::vector<std::string> tokens;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::string token;
    for (std::size_t i = 0; i + 1 < line.size(); i += 2)
      token += static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16));
    tokens.push_back(token);
  }
  return tokens;
}

// Answers drawn at random: what a step takes where nothing is known yet, and where all is.
void time_form(const GrammarVocabulary& vocabulary, const char* name, const AnswerForm& form) {
  const Stopwatch parsing;
  Grammar grammar(vocabulary, form, Preamble::none);
  const double parse_seconds = parsing.seconds();
  std::vector<double> first, again;
  for (std::uint64_t answer = 0; answer < 20; ++answer) {
    Random random(answer);
    Grammar::State state = grammar.start();
    for (int n = 0; n < 200 && !Grammar::is_complete(state); ++n) {
      const Stopwatch clock;
      const std::shared_ptr<const TokenSet> set = grammar.allowed(state);
      first.push_back(clock.seconds());
      const Stopwatch once_more;
      grammar.allowed(state);
      again.push_back(once_more.seconds());
      std::vector<Token> allowed;
      for (Token token = 0; token < vocabulary.size(); ++token)
        if ((*set)[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1)
          allowed.push_back(token);
      state = grammar.after(state, random.pick(allowed));
    }
  }
  const auto mean = [](const std::vector<double>& all) {
    double sum = 0;
    for (const double one : all) sum += one;
    return 1e6 * sum / static_cast<double>(all.size());
  };
  std::vector<double> sorted = first;
  std::ranges::sort(sorted);
  std::printf("%-34s %8.0f %8.0f %8.0f %8.0f %8.1f\n", name, 1e6 * parse_seconds, mean(first),
              1e6 * sorted[sorted.size() * 99 / 100], 1e6 * sorted.back(), mean(again));
}

}  // namespace

int main(int n_arguments, char** arguments) {
  std::vector<std::string> tokens = n_arguments > 1 ? tokens_of(arguments[1]) : made_up_tokens();
  const std::int64_t size = std::ssize(tokens);
  tokens.emplace_back();  // EOS
  const Stopwatch clock;
  const GrammarVocabulary vocabulary(size + 1, std::move(tokens), {}, {static_cast<Token>(size)});
  std::printf("# %ld tokens, %zu nodes, %.0f ms to make the tree; microseconds\n",
              static_cast<long>(size), vocabulary.short_tree(false).nodes().size(),
              1e3 * clock.seconds());
  std::printf("# %-32s %8s %8s %8s %8s %8s\n", "form", "parse", "step", "99 %", "most", "again");
  using Kind = AnswerForm::Kind;
  time_form(vocabulary, "any JSON object", {Kind::json, {}});
  time_form(vocabulary, "strings without a length",
            {Kind::schema, {R"({"type": "object", "properties": {"name": {"type": "string"},
              "kind": {"enum": ["person", "place", "thing"]}, "score": {"type": "number"},
              "tags": {"type": "array", "items": {"type": "string"}}},
              "required": ["name", "kind", "score", "tags"]})"}});
  time_form(vocabulary, "strings of up to 1,000 characters",
            {Kind::schema,
             {R"({"type": "object", "properties": {"a": {"type": "string", "maxLength": 1000},
              "b": {"type": "string", "maxLength": 200}}, "required": ["a", "b"]})"}});
  time_form(vocabulary, "30 to 60 objects, short strings",
            {Kind::schema,
             {R"({"type": "array", "minItems": 30, "maxItems": 60, "items": {"type": "object",
              "properties": {"name": {"type": "string", "minLength": 3, "maxLength": 24},
              "role": {"enum": ["engineer", "manager", "director", "analyst"]},
              "age": {"type": "integer", "minimum": 18, "maximum": 99},
              "notes": {"type": "string", "maxLength": 120}},
              "required": ["name", "role", "age", "notes"]}})"}});
  time_form(vocabulary, "[a-z ]{1,50}: \\d{4}", {Kind::regex, {"[a-z ]{1,50}: \\d{4}"}});
  time_form(vocabulary, "yes, no, unknown", {Kind::choice, {"yes", "no", "unknown"}});
}
