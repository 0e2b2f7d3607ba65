// SPDX-License-Identifier: Apache-2.0
// What an answer has to look like (docs/structured-output.md).
#pragma once

#include <string>
#include <vector>

#include "grammar/expressions.h"

namespace starattn {

struct AnswerForm {
  enum class Kind {
    text,    // anything
    json,    // any JSON object
    schema,  // JSON that a schema describes: texts[0]
    regex,   // texts[0]
    choice,  // one of the texts
  };
  Kind kind = Kind::text;
  std::vector<std::string> texts;

  bool operator==(const AnswerForm&) const = default;
  static void fields(auto& form, auto& archive) {
    auto& [kind, texts] = form;
    archive(kind, texts);
  }
};

const char* name_of(AnswerForm::Kind kind);  // "JSON schema"

// All answers of that form; not for text. where: in front of messages. Throws Error(bad_data) for
// what cannot be read, is not supported, or has no answer.
Expression parse_answer_form(Expressions& in, const AnswerForm& form, const std::string& where);

}  // namespace starattn
