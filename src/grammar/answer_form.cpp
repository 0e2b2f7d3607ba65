// SPDX-License-Identifier: Apache-2.0
#include "grammar/answer_form.h"

#include "base/error.h"
#include "base/text.h"
#include "grammar/json_schema.h"
#include "grammar/json_text.h"
#include "grammar/regex.h"

namespace starattn {
namespace {

Expression choice_of(Expressions& in, const std::vector<std::string>& texts,
                     const std::string& where) {
  if (texts.empty()) fail(Exit::bad_data, "{}: there is nothing to choose from", where);
  for (const std::string& text : texts) {
    if (text.empty()) fail(Exit::bad_data, "{}: an empty text cannot be chosen", where);
    if (!is_utf8(text)) fail(Exit::bad_data, "{}: '{}' is not UTF-8", where, one_line(text));
  }
  return in.any_of_texts(texts);
}

}  // namespace

const char* name_of(AnswerForm::Kind kind) {
  switch (kind) {
    case AnswerForm::Kind::text:
      return "text";
    case AnswerForm::Kind::json:
      return "JSON object";
    case AnswerForm::Kind::schema:
      return "JSON schema";
    case AnswerForm::Kind::regex:
      return "regular expression";
    case AnswerForm::Kind::choice:
      return "choice";
  }
  return "";
}

Expression parse_answer_form(Expressions& in, const AnswerForm& form, const std::string& where) {
  switch (form.kind) {
    case AnswerForm::Kind::json:
      return any_json_object(in);
    case AnswerForm::Kind::schema:
      return parse_json_schema(in, form.texts.at(0), where);
    case AnswerForm::Kind::regex:
      return parse_regex(in, form.texts.at(0), RegexUse::answer, where);
    case AnswerForm::Kind::choice:
      return choice_of(in, form.texts, where);
    case AnswerForm::Kind::text:
      break;
  }
  STARATTN_CHECK(form.kind != AnswerForm::Kind::text);
  return kNoText;
}

}  // namespace starattn
