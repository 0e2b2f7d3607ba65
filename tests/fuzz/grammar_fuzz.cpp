// SPDX-License-Identifier: Apache-2.0
// A JSON schema or a regular expression, by the input's first byte, and answers that are written
// under it.
#include "base/json.h"
#include "base/random.h"
#include "fuzz.h"
#include "grammar/grammar.h"

using namespace starattn;

namespace {

constexpr Token kEos = 256;

const GrammarVocabulary& bytes() {
  static const GrammarVocabulary kBytes = [] {
    std::vector<std::string> texts;
    for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
    texts.insert(texts.end(), {"", "\": ", "aa", "  ", "00", "true", "é\"", "}}"});
    return GrammarVocabulary(std::ssize(texts), texts, {}, {kEos});
  }();
  return kBytes;
}

}  // namespace

STARATTN_FUZZ_TARGET {
  if (input.empty()) return;
  const bool is_schema = input[0] != 'r';
  const AnswerForm form{is_schema ? AnswerForm::Kind::schema : AnswerForm::Kind::regex,
                        {std::string(input.substr(1))}};
  fuzz::only_refuses([&] {
    Grammar grammar(bytes(), form, Preamble::none);
    Random random(input.size());
    Grammar::State state = grammar.start();
    std::string answer;
    for (int n = 0; n < 100; ++n) {
      const std::shared_ptr<const TokenSet> set = grammar.allowed(state);
      std::vector<Token> allowed;
      for (Token token = 0; token < bytes().size(); ++token)
        if ((*set)[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1)
          allowed.push_back(token);
      fuzz::require(!allowed.empty(), "an answer can go on or end");
      const Token token = random.pick(allowed);
      if (token != kEos) {
        answer += bytes().text(token, false);
        state = grammar.after(state, token);
      }
      if (token != kEos && !Grammar::is_complete(state)) continue;
      fuzz::require(is_utf8(answer), "an answer is UTF-8");
      fuzz::require(!is_schema || Json::accept(answer), "an answer to a schema is JSON");
      return;
    }
  });
}
