// SPDX-License-Identifier: Apache-2.0
#include "run/grammars.h"

#include <algorithm>

#include "base/error.h"
#include "io/text_source.h"
#include "run/thinking.h"

namespace starattn {
namespace {

constexpr std::size_t kMostSchemaBytes = std::size_t{1} << 20;

std::unique_ptr<GrammarVocabulary> make_vocabulary(const Tokenizer& tokenizer, std::int64_t size,
                                                   const std::vector<Token>& eos,
                                                   bool tells_thoughts) {
  std::vector<std::string> texts(static_cast<std::size_t>(std::min(size, tokenizer.vocab_size())));
  std::vector<std::string> opening_texts(texts.size());
  std::vector<Token> marks;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto token = static_cast<Token>(i);
    if (tokenizer.is_special(token)) {  // of these an answer's text has think tags alone
      if (!tells_thoughts || tag_of(tokenizer, token).empty()) continue;
      marks.push_back(token);
    }
    texts[i] = tokenizer.bytes_of(token);
    opening_texts[i] = tokenizer.is_special(token) ? texts[i] : tokenizer.opening_bytes_of(token);
  }
  if (opening_texts == texts) opening_texts.clear();
  return std::make_unique<GrammarVocabulary>(size, std::move(texts), std::move(opening_texts), eos,
                                             std::move(marks));
}

// One text has them all, between commas; of several each is one, as in a list of --config.
std::vector<std::string> choices_of(const std::vector<std::string>& said) {
  if (said.size() > 1) return said;
  std::vector<std::string> texts;
  for (std::size_t begin = 0; begin <= said[0].size();) {
    const std::size_t end = std::min(said[0].find(',', begin), said[0].size());
    texts.push_back(said[0].substr(begin, end - begin));
    begin = end + 1;
  }
  return texts;
}

}  // namespace

AnswerForm form_of(const FormOptions& options) {
  using Kind = AnswerForm::Kind;
  if (!options.schema.empty() + !options.regex.empty() + !options.choice.empty() > 1)
    fail(Exit::usage, "--schema, --regex and --choice: an answer has one form; leave others out");
  if (!options.schema.empty()) return {Kind::schema, {read_text(options.schema, kMostSchemaBytes)}};
  if (!options.regex.empty()) return {Kind::regex, {options.regex}};
  if (!options.choice.empty()) return {Kind::choice, choices_of(options.choice)};
  return {};
}

std::shared_ptr<Grammar> Grammars::of(const AnswerForm& form, Preamble preamble) {
  const auto known = std::ranges::find_if(
      known_, [&](const Known& one) { return one.preamble == preamble && one.form == form; });
  if (known != known_.end()) {
    std::rotate(known, known + 1, known_.end());
    return known_.back().grammar;
  }
  if (!vocabulary_) vocabulary_ = make_vocabulary(*tokenizer_, size_, eos_, tells_thoughts_);
  auto grammar = std::make_shared<Grammar>(*vocabulary_, form, preamble);
  if (known_.size() == kKept) known_.erase(known_.begin());
  known_.push_back({form, preamble, grammar});
  return grammar;
}

}  // namespace starattn
